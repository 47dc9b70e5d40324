# Driver, engines and learner on NVIDIA GPUs. From the root of the repository:
#   docker build --file deploy/docker/gpu.Dockerfile --build-arg BASE=REGISTRY/cuda@sha256:DIGEST .
# BASE is a Debian or Ubuntu by its digest, with Python 3.11 as python3.11 and the CUDA toolkit of the
# torch in requirements/gpu.lock: DeepSpeed compiles its optimizer with it when a run starts.
ARG BASE
FROM ${BASE}
ARG BASE
RUN case "$BASE" in *sha256:*) ;; *) echo "BASE=$BASE: name it by its digest" >&2; exit 1 ;; esac
# A compiler for DeepSpeed, git for tasks that are commits, wget for KubeRay's probes.
RUN apt-get update \
    && apt-get install -y --no-install-recommends bubblewrap g++ git wget \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/palestra
COPY . .
RUN PALESTRA_LOCK=requirements/gpu.lock PIP_NO_CACHE_DIR=1 requirements/install.sh \
    && ln -s /opt/palestra/.venv/bin/palestra /opt/palestra/.venv/bin/ray /usr/local/bin/ \
    && mkdir -m 1777 /scratch /runs
# The links are for login shells, which forget PATH.
ENV HOME=/scratch PATH=/opt/palestra/.venv/bin:$PATH
WORKDIR /scratch
USER 10001:10001
