#!/usr/bin/env bash
# Prints the manifests of a kustomization, with an image in place of the default one.
# usage: hack/render.sh IMAGE DIRECTORY
set -euo pipefail

image=$1 directory=$2
cd "$(dirname "$0")/.."
hack/kubectl.sh kustomize "$directory" | sed "s|image: ws-daemon:latest\$|image: $image|"
