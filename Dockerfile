# Two images from one file: `--target server` (no torch) and `--target worker`.
#
#   docker build --target server -t miaod-server .
#   docker build --target worker -t miaod-worker .
#
# TORCH_INDEX_URL: install torch and torchvision (the versions of locks/torch.txt) from another package
# index, such as PyTorch's own CPU index for a much smaller image, instead of the locked CUDA build.
# PRELOAD_WEIGHTS: backbones whose ImageNet weights the worker image carries, as "resnet50".
#
# The server's stages come first: a builder that makes every stage up to the target meets no torch there.

FROM python:3.11-slim AS base
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

FROM base AS server-venv
RUN python3 -m venv /opt/venv
COPY locks/server.txt /opt/locks/
RUN /opt/venv/bin/pip install --quiet --require-hashes -r /opt/locks/server.txt

# The list of what an image holds (CycloneDX), made by a tool that stays out of it.
FROM base AS sbom
RUN python3 -m venv /opt/sbom
COPY locks/sbom.txt /opt/locks/
RUN /opt/sbom/bin/pip install --quiet --require-hashes -r /opt/locks/sbom.txt

FROM sbom AS server-sbom
COPY --from=server-venv /opt/venv /opt/venv
RUN /opt/sbom/bin/cyclonedx-py environment --output-reproducible -o /opt/sbom.cdx.json /opt/venv/bin/python

FROM base AS runtime
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin miaod \
 && mkdir /data && chown miaod:miaod /data
ENV PATH=/opt/venv/bin:$PATH MIAOD_DATA_DIR=/data
WORKDIR /app
VOLUME /data

# The code comes last in both images: a changed line does not copy gigabytes of packages again.
FROM runtime AS server
COPY --from=server-venv /opt/venv /opt/venv
COPY --from=server-sbom /opt/sbom.cdx.json /opt/sbom.cdx.json
COPY LICENSE alembic.ini ./
COPY migrations migrations
COPY server server
USER miaod
ENV MIAOD_HOST=0.0.0.0 MIAOD_PORT=8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["python", "-c", \
  "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['MIAOD_PORT'] + '/readyz', timeout=4)"]
CMD ["python", "-m", "server"]

FROM server-venv AS worker-venv
ARG TORCH_INDEX_URL=""
COPY locks/torch.txt locks/worker.txt /opt/locks/
RUN if [ -z "$TORCH_INDEX_URL" ]; then \
      /opt/venv/bin/pip install --quiet --require-hashes -r /opt/locks/torch.txt; \
    else \
      /opt/venv/bin/pip install --quiet --index-url "$TORCH_INDEX_URL" \
        $(grep -oE '^(torch|torchvision)==[0-9.]+' /opt/locks/torch.txt); \
    fi
RUN /opt/venv/bin/pip install --quiet --no-deps --require-hashes -r /opt/locks/worker.txt

FROM sbom AS worker-sbom
COPY --from=worker-venv /opt/venv /opt/venv
RUN /opt/sbom/bin/cyclonedx-py environment --output-reproducible -o /opt/sbom.cdx.json /opt/venv/bin/python

FROM runtime AS worker
COPY --from=worker-venv /opt/venv /opt/venv
COPY --from=worker-sbom /opt/sbom.cdx.json /opt/sbom.cdx.json
COPY LICENSE alembic.ini ./
COPY migrations migrations
COPY server server
COPY worker worker
ARG PRELOAD_WEIGHTS=""
ENV MIAOD_WEIGHTS_DIR=${PRELOAD_WEIGHTS:+/opt/weights}
RUN [ -z "$PRELOAD_WEIGHTS" ] || python -m worker.miaod.pretrained /opt/weights $PRELOAD_WEIGHTS
USER miaod
# Gives its cycle back on SIGTERM.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "-m", "worker", "check"]
CMD ["python", "-m", "worker"]
