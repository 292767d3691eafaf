#!/usr/bin/env bash
# Fills the current directory: web/ with npm packages, go/ with a git repository of a large Go program in three commits.
command -v npm >/dev/null || { echo "npm is needed: apt-get install npm" >&2; exit 1; }
(cd web && npm install --ignore-scripts --no-audit --no-fund --legacy-peer-deps --loglevel=error)
source=$(cd "$(mktemp -d)" && go mod init bench >/dev/null 2>&1 && go mod download -json k8s.io/kubernetes@v1.37.2 | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
mkdir go && cd go && git init --quiet --initial-branch=main
for part in api staging cmd pkg test vendor third_party plugin cluster; do
	[ -e "$source/$part" ] || continue
	cp -r "$source/$part" . && chmod -R u+w "$part"
	git add . && git -c gc.auto=0 -c maintenance.auto=false -c user.name=bench -c user.email=bench@example.com commit --quiet --message "$part"
done
git gc --quiet
