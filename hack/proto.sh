#!/usr/bin/env bash
# Checks the protobuf files of the daemon's service and generates Go of them, with plugins of this machine alone.
# usage: hack/proto.sh BUF PROTOC_GEN_GO PROTOC_GEN_GO_GRPC
set -euo pipefail

buf=$1 messages=$2 services=$3
cd "$(dirname "$0")/../api"

"$buf" lint
"$buf" format --diff --exit-code
"$buf" generate --template '{
  "version": "v2",
  "plugins": [
    {"local": ["'"$messages"'"], "out": ".", "opt": ["paths=source_relative"]},
    {"local": ["'"$services"'"], "out": ".", "opt": ["paths=source_relative", "require_unimplemented_servers=true"]}
  ]
}'
