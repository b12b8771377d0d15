# Touchdown for CPUs (target cpu, the default) and for NVIDIA GPUs (target cuda):
#     docker build -t touchdown:cpu .
#     docker build -t touchdown:cuda --target cuda .
# Layers from the one that changes least to the one that changes most: system, torch, other packages, our code. All of
# them come as wheels: nothing is compiled, and pip's downloads stay in a cache of the builder's, not in the image.
ARG PYTHON=3.11

# What to install, and our own wheel. Only their contents count for the layers below: a changed linter's setting in
# pyproject.toml, say, installs nothing again.
FROM python:${PYTHON}-slim-bookworm AS sources
WORKDIR /build
COPY pyproject.toml constraints.txt ./
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
    print(*project['dependencies'], sep='\n')" > requirements.txt \
    && grep '^torch==' constraints.txt > torch.txt
COPY README.md LICENSE ./
COPY actors actors
COPY learner learner
COPY serve serve
COPY tune_configs tune_configs
RUN --mount=type=cache,target=/root/.cache/pip \
    pip wheel --no-deps --constraint constraints.txt --wheel-dir wheels .

# hadolint ignore=DL3008
FROM python:${PYTHON}-slim-bookworm AS base
# KubeRay's probes and compose's health checks ask with wget. Debian keeps a release's packages compatible: no pins.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home touchdown \
    && install -d -o touchdown -g touchdown /srv/touchdown /srv/runs
# The variables of serve/service/fast_ingress.py, which Ray must start with on every node, and a few of our own.
ENV PYTHONUNBUFFERED=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_AUTH_MODE=token \
    RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor \
    RAY_SERVE_ENABLE_HA_PROXY=1 \
    RAY_SERVE_THROUGHPUT_OPTIMIZED=1 \
    RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.service.replica.shortcut \
    RAY_SERVE_HAPROXY_BINARY_PATH=/usr/local/bin/touchdown-haproxy \
    RAY_SERVE_HAPROXY_RETRY_ON="conn-failure empty-response" \
    RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S=60 \
    RAY_SERVE_HAPROXY_MAXCONN=16384 \
    RAY_SERVE_HAPROXY_OBSERVE_MARK_DOWN_ENABLED=0 \
    RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL=5 \
    RAY_SERVE_HAPROXY_HEALTH_CHECK_FASTINTER=2s \
    RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S=1 \
    RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S=30 \
    RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S=2 \
    RAY_USE_UVLOOP=0
WORKDIR /srv/touchdown
LABEL org.opencontainers.image.title="Touchdown" \
      org.opencontainers.image.description="Train, compare, serve and publish policy-gradient agents on Ray" \
      org.opencontainers.image.licenses="Apache-2.0"

FROM base AS cuda-packages
# torch as it comes brings CUDA's libraries; the driver comes from the host, through NVIDIA's container toolkit.
# Kubernetes on Google Cloud (GKE) puts the driver's libraries into a directory of its own, which nothing else looks into.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility LD_LIBRARY_PATH=/usr/local/nvidia/lib64
COPY --from=sources /build/torch.txt /build/constraints.txt /build/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint /build/constraints.txt --requirement /build/torch.txt
COPY --from=sources /build/requirements.txt /build/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint /build/constraints.txt --requirement /build/requirements.txt

FROM base AS cpu-packages
# PyTorch's own index has builds without CUDA. What torch needs besides comes in the next layer.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY --from=sources /build/torch.txt /build/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --index-url "${TORCH_INDEX}" --requirement /build/torch.txt
COPY --from=sources /build/constraints.txt /build/requirements.txt /build/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --constraint /build/constraints.txt --requirement /build/requirements.txt

FROM cuda-packages AS cuda
RUN --mount=type=bind,from=sources,source=/build/wheels,target=/wheels pip install --no-cache-dir --no-deps /wheels/*.whl
COPY cluster/train.json cluster/
USER 1000:1000

FROM cpu-packages AS cpu
RUN --mount=type=bind,from=sources,source=/build/wheels,target=/wheels pip install --no-cache-dir --no-deps /wheels/*.whl
COPY cluster/train.json cluster/
USER 1000:1000
