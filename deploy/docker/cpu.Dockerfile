# Driver, engines and learner without GPUs. From the root of the repository:
#   docker build --file deploy/docker/cpu.Dockerfile --build-arg BASE=python@sha256:DIGEST .
# BASE is a Debian with Python 3.11 for x86_64, such as python:3.11-slim-bookworm, by its digest.
# TORCH_INDEX is as in requirements/install.sh.
ARG BASE
FROM ${BASE}
ARG BASE
ARG TORCH_INDEX
RUN case "$BASE" in *sha256:*) ;; *) echo "BASE=$BASE: name it by its digest" >&2; exit 1 ;; esac
# A compiler for DeepSpeed, git for tasks that are commits, wget for KubeRay's probes.
RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap g++ git wget \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/palestra
COPY . .
RUN PALESTRA_LOCK=requirements/cpu.lock PIP_NO_CACHE_DIR=1 requirements/install.sh \
    && ln -s /opt/palestra/.venv/bin/palestra /opt/palestra/.venv/bin/ray /usr/local/bin/ \
    && mkdir -m 1777 /scratch /runs
# The links are for login shells, which forget PATH.
ENV HOME=/scratch PATH=/opt/palestra/.venv/bin:$PATH
WORKDIR /scratch
USER 10001:10001
