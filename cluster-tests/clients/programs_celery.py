"""The Celery application of test_programs.py: its worker is a process of its own.

BROKER is the URL of the broker and of the results; SENTINEL is 1 if it names sentinels.
"""

import os

from celery import Celery

url = os.environ["BROKER"]
app = Celery("jobs", broker=url, backend=url)
if os.environ.get("SENTINEL") == "1":
    options = {"master_name": "mymaster", "sentinel_kwargs": {}}
    app.conf.update(broker_transport_options=options, result_backend_transport_options=options)
app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True, result_expires=60)


@app.task
def add(a, b):
    return a + b


@app.task
def total(numbers):
    return sum(numbers)


@app.task(bind=True, max_retries=2)
def succeed_at_second_try(self):
    if self.request.retries == 0:
        raise self.retry(countdown=0.2)
    return self.request.retries
