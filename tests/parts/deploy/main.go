// Reads what is in deploy/ as Docker reads it, with Docker's own parsers, and prints it as JSON. It builds and runs nothing.
//
//	deploy dockerfile FILE     the stages, and what BuildKit's linter (docker build --check) says of them
//	deploy context FOLDER      the files that FOLDER's .dockerignore lets into the build context
//	deploy compose FILE        the project as "docker compose config" would print it; schema and references are checked
//	deploy yaml FILE           any YAML file
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"go.yaml.in/yaml/v4"
)

func main() {
	if len(os.Args) != 3 {
		fail(fmt.Errorf("two arguments are needed: what, and a path"))
	}
	readers := map[string]func(string) (any, error){"dockerfile": dockerfile, "context": buildContext, "compose": compose, "yaml": plain}
	read, known := readers[os.Args[1]]
	if !known {
		fail(fmt.Errorf("%q is not known", os.Args[1]))
	}
	value, err := read(os.Args[2])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(value)
	}
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

type instruction struct {
	Name  string               `json:"name"`
	Value instructions.Command `json:"value"`
}

type stage struct {
	Name         string        `json:"name"`
	Base         string        `json:"base"`
	Instructions []instruction `json:"instructions"`
}

type recipe struct {
	Stages   []stage  `json:"stages"`
	Warnings []string `json:"warnings"`
}

func dockerfile(path string) (any, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	parsed, err := parser.Parse(file)
	if err != nil {
		return nil, err
	}
	found := recipe{Warnings: []string{}}
	for _, warning := range parsed.Warnings {
		found.Warnings = append(found.Warnings, warning.Short)
	}
	warn := func(rule, _, _, message string, _ []parser.Range) {
		found.Warnings = append(found.Warnings, rule+": "+message)
	}
	stages, _, err := instructions.Parse(parsed.AST, linter.New(&linter.Config{Warn: warn}))
	if err != nil {
		return nil, err
	}
	for _, parsed := range stages {
		one := stage{Name: parsed.Name, Base: parsed.BaseName}
		for _, command := range parsed.Commands {
			one.Instructions = append(one.Instructions, instruction{command.Name(), command})
		}
		found.Stages = append(found.Stages, one)
	}
	return found, nil
}

func buildContext(folder string) (any, error) {
	file, err := os.Open(filepath.Join(folder, ".dockerignore"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	patterns, err := ignorefile.ReadAll(file)
	if err != nil {
		return nil, err
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, err
	}
	sent := []string{}
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		// What is not of the repository is large: it is not walked through where it is hidden as a whole.
		relative, _ := filepath.Rel(folder, path)
		ignored, err := matcher.MatchesOrParentMatches(relative)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if ignored && (relative == "target" || relative == ".parts" || relative == ".git") {
				return filepath.SkipDir
			}
			return nil
		}
		if !ignored {
			sent = append(sent, relative)
		}
		return nil
	})
	return sent, err
}

func compose(path string) (any, error) {
	options, err := cli.NewProjectOptions([]string{path}, cli.WithOsEnv, cli.WithResolvedPaths(false))
	if err != nil {
		return nil, err
	}
	return options.LoadProject(context.Background())
}

func plain(path string) (any, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var value any
	return value, yaml.Unmarshal(text, &value)
}
