package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// comments are what the source says of types ("Class") and their fields ("Class.Driver").
type comments map[string]string

// readComments reads the Go files of a directory.
func readComments(dir string) (comments, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	c := comments{}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", file, err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if group, ok := n.(*ast.GenDecl); ok && group.Tok == token.TYPE {
				c.addGroup(group)
			}
			return true
		})
	}
	return c, nil
}

func (c comments) addGroup(group *ast.GenDecl) {
	for _, spec := range group.Specs {
		t, ok := spec.(*ast.TypeSpec)
		if !ok {
			continue
		}
		c[t.Name.Name] = text(group.Doc)
		fields, ok := t.Type.(*ast.StructType)
		if !ok {
			continue
		}
		last := ""
		for _, field := range fields.Fields.List {
			for _, name := range field.Names {
				if said := text(field.Doc); said != "" || !strings.Contains(last, name.Name) {
					last = said // else the comment before is about this one, too
				}
				c[t.Name.Name+"."+name.Name] = last
			}
		}
	}
}

// text is a comment in one line.
func text(group *ast.CommentGroup) string { return strings.Join(strings.Fields(group.Text()), " ") }

// of returns what the source says of a field, with the name that the field has in the file.
func (c comments) of(owner reflect.Type, f reflect.StructField, key string) (string, error) {
	said := c[owner.Name()+"."+f.Name]
	if said == "" {
		return "", fmt.Errorf("%s.%s has no comment: nobody could know what it is for", owner.Name(), f.Name)
	}
	if rest, ok := strings.CutPrefix(said, f.Name+" "); ok {
		return key + " " + rest, nil
	}
	return said, nil
}
