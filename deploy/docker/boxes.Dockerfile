# What boxes are made of, and the reaper: an image with python3. Supervisor and agent are not in it,
# they come with every box.
#   docker build --file deploy/docker/boxes.Dockerfile --build-arg BASE=python@sha256:DIGEST .
ARG BASE
FROM ${BASE}
ARG BASE
RUN case "$BASE" in *sha256:*) ;; *) echo "BASE=$BASE: name it by its digest" >&2; exit 1 ;; esac
RUN python3 -c 'import sys; sys.exit("python3 is too old" if sys.version_info < (3, 9) else 0)'
USER 10001:10001
