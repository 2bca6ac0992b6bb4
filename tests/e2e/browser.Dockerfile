# A browser and its driver, for the tests of pages; it ships nowhere.
ARG BASE_IMAGE=debian:bookworm-slim
FROM ${BASE_IMAGE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends chromium chromium-driver fonts-dejavu-core \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home tester
USER tester
ENTRYPOINT ["chromedriver"]
