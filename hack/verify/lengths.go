package main

import (
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strings"
)

// Lengths above which code is named in the report, and above which it is refused.
const (
	longFunction    = 60
	tooLongFunction = 100
	longFile        = 500
)

// function is one function with a body.
type function struct {
	name  string
	place string
	lines int
}

// checkLengths reports how long functions and files are, and refuses functions that nobody can read.
func checkLengths(files []string) error {
	var functions []function
	for _, file := range files {
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			continue
		}
		found, lines, err := functionsOf(file)
		if err != nil {
			return err
		}
		if len(found) > 0 && lines > longFile {
			fmt.Printf("long file: %s has %d lines\n", file, lines)
		}
		functions = append(functions, found...)
	}
	return reportFunctions(functions)
}

func reportFunctions(functions []function) error {
	if len(functions) == 0 {
		return errors.New("found no functions: run this at the root of the repository")
	}
	slices.SortFunc(functions, func(a, b function) int { return cmp.Compare(a.lines, b.lines) })
	at := func(percent int) int { return functions[(len(functions)-1)*percent/100].lines }
	fmt.Printf("%d functions: median %d lines, 90th percentile %d, longest %d (%s)\n",
		len(functions), at(50), at(90), at(100), functions[len(functions)-1].name)
	var errs []error
	for _, f := range functions {
		if f.lines > longFunction {
			fmt.Printf("long function: %s: %s has %d lines\n", f.place, f.name, f.lines)
		}
		if f.lines > tooLongFunction {
			errs = append(errs, fmt.Errorf("%s: %s has %d lines, more than %d: split it", f.place, f.name, f.lines, tooLongFunction))
		}
	}
	return errors.Join(errs...)
}

// functionsOf gives the functions of a file that a person wrote, and its number of lines.
func functionsOf(file string) (functions []function, lines int, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, 0, err
	}
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, 0, err
	}
	if ast.IsGenerated(parsed) {
		return nil, 0, nil
	}
	for _, declaration := range parsed.Decls {
		f, ok := declaration.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		start, end := set.Position(f.Pos()), set.Position(f.End())
		place := fmt.Sprintf("%s:%d", file, start.Line)
		functions = append(functions, function{f.Name.Name, place, end.Line - start.Line + 1})
	}
	return functions, strings.Count(string(text), "\n"), nil
}
