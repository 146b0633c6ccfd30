"""A stand-in for Kubernetes' API: as much as helm asks when it renders for a cluster that is there (`lookup`)."""

import contextlib
import copy
import http.server
import json
import pathlib
import tempfile
import threading

# Group and version, and the kinds in it: (name in addresses, kind).
RESOURCES = {
    "v1": [("secrets", "Secret"), ("configmaps", "ConfigMap"), ("pods", "Pod"), ("services", "Service"),
           ("serviceaccounts", "ServiceAccount"), ("namespaces", "Namespace"),
           ("persistentvolumeclaims", "PersistentVolumeClaim")],
    "apps/v1": [("statefulsets", "StatefulSet")],
    "batch/v1": [("cronjobs", "CronJob")],
    "policy/v1": [("poddisruptionbudgets", "PodDisruptionBudget")],
    "networking.k8s.io/v1": [("networkpolicies", "NetworkPolicy"), ("ingresses", "Ingress")],
    "cert-manager.io/v1": [("certificates", "Certificate"), ("issuers", "Issuer")],
    "monitoring.coreos.com/v1": [("servicemonitors", "ServiceMonitor"), ("prometheusrules", "PrometheusRule")],
    "route.openshift.io/v1": [("routes", "Route")],
}
OPENSHIFT = {"security.openshift.io/v1": [("securitycontextconstraints", "SecurityContextConstraints")]}


def reply(path, objects, resources):
    """What a GET is answered; None: there is no such thing."""
    parts = path.strip("/").split("/")
    if parts == ["version"]:
        return {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}
    if parts == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"]}
    if parts == ["apis"]:
        groups = [name.split("/") for name in resources if "/" in name]
        named = [{"name": g, "versions": [{"groupVersion": f"{g}/{v}", "version": v}],
                  "preferredVersion": {"groupVersion": f"{g}/{v}", "version": v}} for g, v in groups]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": named}
    version = parts[1] if parts[0] == "api" else "/".join(parts[1:3])
    rest = parts[2:] if parts[0] == "api" else parts[3:]
    if version not in resources:
        return None
    kinds = dict(resources[version])
    if not rest:
        each = [{"name": n, "singularName": "", "namespaced": True, "kind": k, "verbs": ["get", "list"]} for n, k in kinds.items()]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": each}
    if rest[0] != "namespaces" or len(rest) < 3:
        return None
    _, namespace, plural, *name = rest
    found = [o for o in objects if o["kind"] == kinds.get(plural) and o["metadata"]["namespace"] == namespace]
    if name:
        return next((o for o in found if o["metadata"]["name"] == name[0]), None)
    return {"kind": f"{kinds[plural]}List", "apiVersion": version, "metadata": {}, "items": found}


@contextlib.contextmanager
def serving(objects, openshift=False):
    """Flags and variables with which helm asks an API that has these objects, made by the release `kw`."""
    objects = copy.deepcopy(objects)
    for each in objects:
        metadata = each["metadata"]
        owner = {"meta.helm.sh/release-name": "kw", "meta.helm.sh/release-namespace": metadata["namespace"]}
        metadata["annotations"] = metadata.get("annotations", {}) | owner
    resources = RESOURCES | (OPENSHIFT if openshift else {})

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # An answer in one piece: what is sent in several waits for acknowledgements.
        wbufsize = -1

        def do_GET(self):
            found = reply(self.path.split("?")[0], objects, resources)
            body = found or {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            text = json.dumps(body).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        address = f"http://127.0.0.1:{server.server_port}"
        kubeconfig = pathlib.Path(folder, "config")
        kubeconfig.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": {"server": address}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "users": [{"name": "me", "user": {}}],
        }))
        try:
            yield ["--dry-run=server", "--disable-openapi-validation"], {"KUBECONFIG": str(kubeconfig), "HOME": folder, "PATH": "/usr/bin:/bin"}
        finally:
            server.shutdown()
            server.server_close()
