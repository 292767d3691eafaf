# Both bases can be replaced, for example by mirrored or hardened images.
ARG BUILD_BASE=golang:1.26-bookworm
ARG BASE=debian:bookworm-slim

FROM ${BUILD_BASE} AS build
WORKDIR /src
# Modules change less often than code: they are a layer of their own.
COPY go.mod go.sum ./
RUN go mod download
COPY main.go ./
COPY api api
COPY controllers controllers
COPY internal internal
ARG VERSION=unknown
RUN CGO_ENABLED=0 go build -trimpath \
    -ldflags "-s -w -X wsdaemon.dev/ws-daemon/internal/cmd.version=${VERSION}" -o /ws-daemon .

FROM ${BASE}
ARG VERSION=unknown
LABEL org.opencontainers.image.title="ws-daemon" \
      org.opencontainers.image.description="Keeps the files of development workspaces on the local disks of Kubernetes nodes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# git clones repositories into new workspaces, git-lfs fetches what they keep elsewhere, ssh reaches some. The driver
# lvm needs more:
# PACKAGES="ca-certificates git git-lfs openssh-client lvm2 thin-provisioning-tools xfsprogs e2fsprogs".
ARG PACKAGES="ca-certificates git git-lfs openssh-client"
RUN export DEBIAN_FRONTEND=noninteractive \
    && apt-get update \
    && apt-get install --yes --no-install-recommends ${PACKAGES} \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /ws-daemon /usr/bin/ws-daemon
# The daemon gives files to the owners of workspaces and reads those of all of them. What else root may do is taken away
# by the DaemonSet's security context.
USER 0:0
ENTRYPOINT ["/usr/bin/ws-daemon"]
CMD ["run", "--config", "/etc/ws-daemon/config.json"]
