package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const cliBegin = `# The command line

Every command and flag of ` + "`ws-daemon`" + `; ` + "`ws-daemon COMMAND --help`" + ` prints the same. Generated from the commands by ` + "`make reference`" + `.

Completion, for bash (` + "`zsh`, `fish` and `powershell`" + ` likewise); names of workspaces, namespaces and backups come from the daemon:

` + "```sh\nsource <(ws-daemon completion bash)\n```\n"

// cliReference documents a command and all below it, as Markdown.
func cliReference(root *cobra.Command) string {
	var out strings.Builder
	out.WriteString(cliBegin)
	describe(&out, root)
	return out.String()
}

// describe writes a section for each command that does something, or has flags for others.
func describe(out *strings.Builder, cmd *cobra.Command) {
	if cmd.Hidden {
		return
	}
	fmt.Fprintf(out, "\n## %s\n\n%s\n", cmd.CommandPath(), sentence(cmd))
	if cmd.HasSubCommands() {
		out.WriteString("\n| Command | What it does |\n|---|---|\n")
		for _, sub := range cmd.Commands() {
			if !sub.Hidden {
				fmt.Fprintf(out, "| [`%s`](#%s) | %s |\n", sub.CommandPath(), strings.ReplaceAll(sub.CommandPath(), " ", "-"), cell(sub.Short))
			}
		}
	} else {
		fmt.Fprintf(out, "\n```sh\n%s\n```\n", cmd.UseLine())
		if cmd.Example != "" {
			fmt.Fprintf(out, "\nFor example:\n\n```sh\n%s\n```\n", strings.ReplaceAll(strings.TrimPrefix(cmd.Example, "  "), "\n  ", "\n"))
		}
	}
	flagTable(out, cmd)
	for _, sub := range cmd.Commands() {
		describe(out, sub)
	}
}

// sentence is what a command says of itself.
func sentence(cmd *cobra.Command) string {
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	text = strings.TrimSpace(text)
	if !strings.HasSuffix(text, ".") {
		text += "."
	}
	return strings.ReplaceAll(text, "<", `\<`)
}

// flagTable lists the flags that are the command's own. Those of the commands above are in the sections of these.
func flagTable(out *strings.Builder, cmd *cobra.Command) {
	var rows []string
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && f.Name != "help" {
			rows = append(rows, flagRow(f))
		}
	})
	if len(rows) > 0 {
		out.WriteString("\n| Flag | Default | Meaning |\n|---|---|---|\n" + strings.Join(rows, ""))
	}
	if above := cmd.Parent(); !cmd.HasSubCommands() && above != nil && above.HasPersistentFlags() {
		fmt.Fprintf(out, "\nAnd the flags of [`%s`](#%s).\n", above.CommandPath(), strings.ReplaceAll(above.CommandPath(), " ", "-"))
	}
}

func flagRow(f *pflag.Flag) string {
	value, usage := pflag.UnquoteUsage(f)
	name := "--" + f.Name
	if f.Shorthand != "" {
		name = "-" + f.Shorthand + ", " + name
	}
	if value != "" {
		name += " " + value
	}
	return fmt.Sprintf("| `%s` | %s | %s |\n", name, fallback(f), cell(strings.ReplaceAll(usage, "\n", " ")))
}

// fallback is the default of a flag, unless it is nothing, or depends on the machine, which the words then say.
func fallback(f *pflag.Flag) string {
	switch {
	case strings.Contains(f.Usage, "by default"):
		return ""
	case f.DefValue == "", f.DefValue == "false", f.DefValue == "[]", f.DefValue == "0", f.DefValue == "0s":
		return ""
	default:
		return "`" + f.DefValue + "`"
	}
}
