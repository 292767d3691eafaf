// Command docs prints, as Markdown, the documented text constants of a package: conditions, reasons, annotations. The
// generator of the API reference knows only types.
package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./hack/docs DIRECTORY")
		os.Exit(2)
	}
	if err := run(os.Stdout, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return err
	}
	slices.Sort(files)
	if _, err := fmt.Fprint(out, "\n## Conditions, reasons and annotations\n"); err != nil {
		return err
	}
	var errs []error
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			return fmt.Errorf("parse %s: %w", file, err)
		}
		for _, declaration := range parsed.Decls {
			if group, ok := declaration.(*ast.GenDecl); ok {
				errs = append(errs, printGroup(out, group))
			}
		}
	}
	_, err = fmt.Fprint(out, "\n## The daemon's service\n\nWhat the daemon of a node tells and does over gRPC: [call by call](service.md).\n")
	return errors.Join(append(errs, err)...)
}

// printGroup prints a documented group of untyped text constants; those with a type are in their type's section.
func printGroup(out io.Writer, group *ast.GenDecl) error {
	if group.Tok != token.CONST || group.Doc == nil {
		return nil
	}
	var rows strings.Builder
	for _, spec := range group.Specs {
		constant, ok := spec.(*ast.ValueSpec)
		if !ok || constant.Type != nil || len(constant.Values) != 1 {
			continue
		}
		text, ok := textOf(constant.Values[0])
		if !ok {
			continue
		}
		fmt.Fprintf(&rows, "| `%s` | %s |\n", text, meaning(constant))
	}
	if rows.Len() == 0 {
		return nil
	}
	_, err := fmt.Fprintf(out, "\n%s\n\n| Value | Meaning |\n|---|---|\n%s", strings.TrimSpace(group.Doc.Text()), rows.String())
	return err
}

// textOf gives the value of a text literal. A sum of constants begins with one that the reader knows: its name is left out.
func textOf(value ast.Expr) (string, bool) {
	prefix := ""
	if sum, ok := value.(*ast.BinaryExpr); ok && sum.Op == token.ADD {
		prefix, value = "…", sum.Y
	}
	literal, ok := value.(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(literal.Value)
	return prefix + text, err == nil
}

// meaning gives the comment of a constant in one line, without the name that Go wants at its beginning.
func meaning(constant *ast.ValueSpec) string {
	var parser comment.Parser
	text := string((&comment.Printer{TextWidth: -1}).Text(parser.Parse(constant.Doc.Text())))
	text = strings.TrimPrefix(strings.Join(strings.Fields(text), " "), constant.Names[0].Name+" ")
	return strings.ReplaceAll(text, "|", `\|`)
}
