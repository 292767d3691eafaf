package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// daemonName is the tool that all others are compared with.
const daemonName = "ws-daemon"

// tool is a contender: bash scripts with the names of [places] in braces. A work without a script is one that it cannot do.
type tool struct {
	name    string
	version string
	env     []string
	init    string          // makes an empty store, and is not measured
	before  map[work]string // not measured either; may be there without a script to measure
	do      map[work]string
}

// places of one tool in one round.
type places struct {
	tree  string // what is backed up
	store string // empty at the start of the round
	out   string // empty before each work
	file  string // path of the one file, relative to the tree
	url   string // of the repository that is cloned
	self  string // path of this program
}

func (p places) expand(script string) string {
	return expand(script, "{tree}", p.tree, "{store}", p.store, "{out}", p.out, "{file}", p.file, "{url}", p.url, "{self}", p.self)
}

func (p places) environment(t tool) []string {
	env := make([]string, 0, len(t.env))
	for _, variable := range t.env {
		env = append(env, p.expand(variable))
	}
	return env
}

func expand(text string, names ...string) string { return strings.NewReplacer(names...).Replace(text) }

// contenders returns the tools that are installed and asked for.
func contenders(o options) ([]tool, error) {
	daemon, err := filepath.Abs(o.daemon)
	if err != nil {
		return nil, err
	}
	all := []tool{ours(daemon), plainTar(), zstdTar(), copying(), restic(), borg(), git()}
	return slices.DeleteFunc(all, func(t tool) bool {
		program, _, _ := strings.Cut(t.version, " ")
		_, err := exec.LookPath(program)
		return (err != nil && t.name != daemonName) || !o.measures(t.name)
	}), nil
}

// ours is ws-daemon with encryption and full verification.
func ours(daemon string) tool {
	at := " --store file://{store}/s --domain bench --workspace tree --key-file {store}/key --json "
	create := daemon + " archive create" + at
	restoring := daemon + " archive restore" + at
	elsewhere := "export XDG_CACHE_HOME={store}/elsewhere; "
	t := tool{
		name: daemonName, version: daemon + " version",
		env: []string{"XDG_CACHE_HOME={store}/cache"},
		init: "mkdir {store}/s; head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n' > {store}/key; " +
			daemon + " archive init --store file://{store}/s",
		before: map[work]string{moved: elsewhere + restoring + "{out}"},
		do: map[work]string{
			full: create + "{tree}", unchanged: create + "{tree}", changed: create + "{tree}",
			restore: restoring + "{out} && sync -f {out}",
			single:  restoring + "--path {file} {out} && sync -f {out}",
			moved:   elsewhere + create + "{out}",
			cloned:  "{self} " + clonerName + " {url} {out} && sync -f {out}",
		},
	}
	for _, n := range manyCounts() {
		t.do[createMany(n)], t.do[restoreMany(n)] = t.do[full], t.do[restore]
	}
	return t
}

// plainTar cannot add a small change: it packs everything anew, unmeasured, so that it restores the same tree as the others.
func plainTar() tool {
	create := "tar cf {store}/tar -C {tree} ."
	return tool{
		name: "tar", version: "tar --version",
		do: map[work]string{
			full:    create,
			restore: "tar xf {store}/tar -C {out} && sync -f {out}",
			single:  "tar xf {store}/tar -C {out} ./{file} && sync -f {out}",
		},
		before: map[work]string{changed: create},
	}
}

func zstdTar() tool {
	create := "tar cf - -C {tree} . | zstd -q -1 -T2 -f -o {store}/tar.zst"
	return tool{
		name: "tar-zstd", version: "zstd --version",
		do: map[work]string{
			full:    create,
			restore: "zstd -q -dc {store}/tar.zst | tar xf - -C {out} && sync -f {out}",
			single:  "zstd -q -dc {store}/tar.zst | tar xf - -C {out} ./{file} && sync -f {out}",
		},
		before: map[work]string{changed: create},
	}
}

func copying() tool {
	do := "cp -a {tree}/. {out} && sync -f {out}"
	t := tool{name: "cp", version: "cp --version", do: map[work]string{restore: do}}
	for _, n := range manyCounts() {
		t.do[restoreMany(n)] = do // how time grows with the number of files where nothing but the file system is at work
	}
	return t
}

func restic() tool {
	create := "cd {tree} && restic -q -r {store}/r backup ."
	return tool{
		name: "restic", version: "restic version",
		env:  []string{"RESTIC_PASSWORD=bench", "RESTIC_CACHE_DIR={store}/cache"},
		init: "restic -q -r {store}/r init",
		do: map[work]string{
			full: create, unchanged: create, changed: create,
			restore: "restic -q -r {store}/r restore latest --target {out} && sync -f {out}",
			single:  "restic -q -r {store}/r restore latest --include /{file} --target {out} && sync -f {out}",
		},
	}
}

func borg() tool {
	create := "cd {tree} && borg create --compression zstd,1 {store}/b::"
	return tool{
		name: "borg", version: "borg --version",
		env:  []string{"BORG_PASSPHRASE=bench", "BORG_BASE_DIR={store}/base"},
		init: "mkdir {store}/base && borg init --encryption=repokey {store}/b",
		do: map[work]string{
			full: create + "full .", unchanged: create + "unchanged .", changed: create + "changed .",
			restore: "cd {out} && borg extract {store}/b::changed && sync -f {out}",
			single:  "cd {out} && borg extract {store}/b::full {file} && sync -f {out}",
		},
	}
}

// git is what people clone with.
func git() tool {
	return tool{
		name: "git", version: "git version",
		env: []string{"HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1"},
		do:  map[work]string{cloned: "git clone --quiet {url} {out}/clone && sync -f {out}"},
	}
}

// versionOf returns the first line of what a tool says of itself.
func versionOf(ctx context.Context, t tool) (string, error) {
	_, output, err := execute(ctx, t.version)
	line, _, _ := strings.Cut(strings.TrimSpace(string(output)), "\n")
	return line, err
}
