# The image of ws-daemon. Both bases can be replaced, for example by mirrored or hardened images; docs/install.md says how to pin them
# by digest, and how to build the same image where nothing can be pulled.
ARG BUILD_BASE=golang:1.26.8-bookworm
ARG BASE=debian:12.15-slim

# The compiler runs on the machine that builds, whatever it builds for.
FROM --platform=$BUILDPLATFORM ${BUILD_BASE} AS build
ARG TARGETARCH
ARG VERSION=unknown
WORKDIR /src
COPY go.mod go.sum main.go ./
COPY api api
COPY controllers controllers
COPY internal internal
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOARCH=${TARGETARCH} go build -buildvcs=false -trimpath \
    -ldflags "-s -w -buildid= -X wsdaemon.dev/ws-daemon/internal/cmd.version=${VERSION}" -o /ws-daemon .

FROM ${BASE}
# All programs that the daemon runs: git and git-lfs bring repositories into new workspaces (the daemon itself is git's ssh), lvm2 with
# the tools of thin pools, xfsprogs and e2fsprogs make volumes. Of xfsprogs it needs mkfs.xfs, not what checks and edits file systems by
# Python, ICU and libedit: the package is told that it can do without them, so that apt goes on working in images on top of this one.
# What differs from build to build goes in the same layer: logs, caches, what dpkg keeps of before, and settings of git-lfs that the
# daemon's git never reads.
RUN export DEBIAN_FRONTEND=noninteractive \
    && apt-get update \
    && apt-get install --yes --no-install-recommends \
       ca-certificates e2fsprogs git git-lfs libinih1 liburcu8 lvm2 thin-provisioning-tools \
    && cd /tmp && apt-get -o APT::Sandbox::User=root download xfsprogs && dpkg-deb --raw-extract xfsprogs_*.deb xfsprogs \
    && sed --regexp-extended --in-place '/^Depends:/s/, (python3|libicu|libedit)[^,]*//g' xfsprogs/DEBIAN/control \
    && dpkg-deb --build xfsprogs && dpkg --install xfsprogs.deb && apt-get check \
    && rm -rf /tmp/* /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/cache/ldconfig/* /var/lib/dpkg/*-old \
       /var/log/* /etc/passwd- /etc/group- /etc/shadow- /etc/gshadow- /etc/gitconfig
COPY --from=build /ws-daemon /usr/bin/ws-daemon
ARG VERSION=unknown
LABEL org.opencontainers.image.title="ws-daemon" \
      org.opencontainers.image.description="Keeps the files of development workspaces on the local disks of Kubernetes nodes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# The daemon gives files to the owners of workspaces, reads those of all of them and mounts their volumes. docs/security.md lists
# what it needs root for; what touches content of workspaces drops all of it.
USER 0:0
ENTRYPOINT ["/usr/bin/ws-daemon"]
CMD ["run", "--config", "/etc/ws-daemon/config.json"]
