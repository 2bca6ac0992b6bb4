# systemd's own check of units, and the program that the unit runs; it ships nowhere.
ARG BASE_IMAGE=debian:bookworm-slim
FROM ${BASE_IMAGE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends docker.io systemd \
    && rm -rf /var/lib/apt/lists/*
ENTRYPOINT ["systemd-analyze", "verify", "--man=no"]
