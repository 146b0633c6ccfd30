"""Certificates as cert-manager makes them, by openssl: a CA for each folder, and a certificate with these names."""

import pathlib
import subprocess


def made(folder, names, addresses):
    """The data of the Secret that a Certificate with these names would get."""
    folder = pathlib.Path(folder)

    def openssl(command, *more):
        subprocess.run(["openssl", *command.split(), *more], cwd=folder, check=True, capture_output=True)

    if not (folder / "ca.key").exists():
        openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca")
    alternative = ",".join([f"DNS:{name}" for name in names] + [f"IP:{address}" for address in addresses])
    (folder / "extensions").write_text(f"subjectAltName={alternative}\nextendedKeyUsage=serverAuth,clientAuth\n")
    openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tls.key -out tls.csr -subj /CN=keyward")
    openssl("x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile extensions -out tls.crt")
    return {name: (folder / name).read_bytes() for name in ("tls.crt", "tls.key", "ca.crt")}
