# Two images of one build: `mllm4rec` for workers, with the libraries of CUDA that are opened at run time, and
# `mllm4rec-coordinator` without them. No compiler is in either.
#
#   docker build --target mllm4rec -t mllm4rec .
#   docker build --target mllm4rec-coordinator -t mllm4rec-coordinator .
#
# Give the images by digest where builds have to be the same for ever: --build-arg RUST_IMAGE=docker.io/library/rust@sha256:…
ARG RUST_IMAGE=docker.io/library/rust:1.95-slim-bookworm
ARG CUDA_IMAGE=docker.io/nvidia/cuda:13.0.1-runtime-ubuntu22.04
ARG BASE_IMAGE=docker.io/library/debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
# The cache outlives the layer; the program does not, so it is copied out.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --package mllm4rec \
    && mkdir -p /out/usr/local/bin /out/usr/share/mllm4rec \
    && cp target/release/mllm4rec /out/usr/local/bin/ \
    && strip /out/usr/local/bin/mllm4rec \
    && cp -r configs /out/usr/share/mllm4rec/

FROM ${CUDA_IMAGE} AS cuda
# What a worker opens by name: NVRTC with its builtins, cuBLASLt, NCCL. The driver comes from the node.
RUN mkdir -p /out/usr/local/lib/cuda \
    && find / -xdev \( -name 'libnvrtc.so.13*' -o -name 'libnvrtc-builtins.so.13*' -o -name 'libcublasLt.so.13*' \
         -o -name 'libnccl.so.2*' \) -exec cp -P {} /out/usr/local/lib/cuda/ \;

FROM ${BASE_IMAGE} AS base
# Certificates of authorities are to be those of the day of the build.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 65532 mllm4rec \
    && useradd --uid 65532 --gid 65532 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin mllm4rec
COPY --from=build /out/ /
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["/usr/local/bin/mllm4rec"]

FROM base AS mllm4rec-coordinator
EXPOSE 7070 9090
CMD ["coordinator"]

FROM base AS mllm4rec
COPY --from=cuda /out/ /
# Which cards a container sees, Kubernetes says, or `docker run --gpus`.
ENV MLLM4REC_CUDA_LIBS=/usr/local/lib/cuda \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 7071 9090
CMD ["worker"]
