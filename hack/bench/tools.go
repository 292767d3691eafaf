package main

import (
	"context"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// places of one tool in one round.
type places struct {
	tree  string // what is backed up
	store string // empty at the start of the round
	out   string // empty before each restore
	file  string // path of the one file, relative to the tree
}

// tool is a contender. A command that is nil means that the tool cannot do that work.
type tool struct {
	name    string
	version command
	env     func(p places) []string
	init    func(p places) *command
	do      map[work]func(p places) *command
}

func script(text string) func(places) *command {
	return func(p places) *command {
		c := shell(strings.NewReplacer("{tree}", p.tree, "{store}", p.store, "{out}", p.out, "{file}", p.file).Replace(text))
		return &c
	}
}

// contenders returns the tools that are installed and asked for.
func contenders(o options) []tool {
	all := []tool{ours(o.daemon), plainTar(), zstdTar(), copying(), restic(), borg()}
	return slices.DeleteFunc(all, func(t tool) bool {
		_, err := exec.LookPath(t.version.argv[0])
		return err != nil || (o.only != "" && !slices.Contains(strings.Split(o.only, ","), t.name))
	})
}

// ours is ws-daemon with encryption and full verification. Restores end with a sync of the file system, as all others'.
func ours(daemon string) tool {
	archive := daemon + " archive "
	at := " --store file://{store}/s --domain bench --workspace tree --key-file {store}/key --json "
	create := archive + "create" + at + "{tree}"
	return tool{
		name: "ws-daemon", version: command{argv: []string{daemon, "version"}},
		env:  func(p places) []string { return []string{"XDG_CACHE_HOME=" + filepath.Join(p.store, "cache")} },
		init: script("mkdir {store}/s; head -c 32 /dev/urandom | od -An -tx1 | tr -cd 0-9a-f > {store}/key; " + archive + "init --store file://{store}/s"),
		do: map[work]func(places) *command{
			full: script(create), unchanged: script(create), changed: script(create),
			restore: script(archive + "restore" + at + "{out} && sync -f {out}"),
			single:  script(archive + "restore" + at + "--path {file} {out} && sync -f {out}"),
		},
	}
}

func plainTar() tool {
	return tool{
		name: "tar", version: command{argv: []string{"tar", "--version"}},
		do: map[work]func(places) *command{
			full:    script("tar cf {store}/tar -C {tree} ."),
			restore: script("tar xf {store}/tar -C {out} && sync -f {out}"),
			single:  script("tar xf {store}/tar -C {out} ./{file} && sync -f {out}"),
		},
	}
}

func zstdTar() tool {
	return tool{
		name: "tar-zstd", version: command{argv: []string{"zstd", "--version"}},
		do: map[work]func(places) *command{
			full:    script("tar cf - -C {tree} . | zstd -q -1 -T2 -o {store}/tar.zst"),
			restore: script("zstd -q -dc {store}/tar.zst | tar xf - -C {out} && sync -f {out}"),
			single:  script("zstd -q -dc {store}/tar.zst | tar xf - -C {out} ./{file} && sync -f {out}"),
		},
	}
}

func copying() tool {
	return tool{
		name: "cp", version: command{argv: []string{"cp", "--version"}},
		do: map[work]func(places) *command{
			restore: script("cp -a {tree}/. {out} && sync -f {out}"),
		},
	}
}

func restic() tool {
	create := "cd {tree} && restic -q -r {store}/r backup ."
	return tool{
		name: "restic", version: command{argv: []string{"restic", "version"}},
		env: func(p places) []string {
			return []string{"RESTIC_PASSWORD=bench", "RESTIC_CACHE_DIR=" + filepath.Join(p.store, "cache")}
		},
		init: script("restic -q -r {store}/r init"),
		do: map[work]func(places) *command{
			full: script(create), unchanged: script(create), changed: script(create),
			restore: script("restic -q -r {store}/r restore latest --target {out} && sync -f {out}"),
			single:  script("restic -q -r {store}/r restore latest --include /{file} --target {out} && sync -f {out}"),
		},
	}
}

func borg() tool {
	create := "cd {tree} && borg create --compression zstd,1 {store}/b::$(date +%s%N) ."
	last := "$(borg list --last 1 --short {store}/b)"
	return tool{
		name: "borg", version: command{argv: []string{"borg", "--version"}},
		env: func(p places) []string {
			return []string{"BORG_PASSPHRASE=bench", "BORG_BASE_DIR=" + filepath.Join(p.store, "base"), "BORG_RELOCATED_REPO_ACCESS_IS_OK=yes"}
		},
		init: script("mkdir {store}/base && borg init --encryption=repokey {store}/b"),
		do: map[work]func(places) *command{
			full: script(create), unchanged: script(create), changed: script(create),
			restore: script("cd {out} && borg extract {store}/b::" + last + " && sync -f {out}"),
			single:  script("cd {out} && borg extract {store}/b::" + last + " {file} && sync -f {out}"),
		},
	}
}

// versionOf returns the first line of what a tool says of itself.
func versionOf(ctx context.Context, t tool) (string, error) {
	c, err := execute(ctx, t.version)
	line, _, _ := strings.Cut(strings.TrimSpace(string(c.output)), "\n")
	return line, err
}
