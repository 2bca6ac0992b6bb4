"""The service under load: `python -m stages.loadtest compare | overload | soak`, in the load image.

It starts the service itself, and what it is compared with, each as a process that listens on
127.0.0.1: the container needs no network. Clients that wait for their answers are Locust's; a flood
that does not wait is h2load's.
"""
