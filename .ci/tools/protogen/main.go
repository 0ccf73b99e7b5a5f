package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "protogen:", err)
		os.Exit(1)
	}
}

// run is main without the process around it, so that tests can call it.
func run(ctx context.Context, args []string, stderr io.Writer) error {
	flags := flag.NewFlagSet("protogen", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", "api", "root of the .proto files; imports are relative to it")
	pluginDir := flags.String("plugins", "", "directory that holds the protoc-gen-* binaries")
	check := flags.Bool("check", false, "write nothing; fail if a generated file is missing, stale or extra")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: the files are those under -dir", flags.Arg(0))
	}
	if *pluginDir == "" {
		return errors.New("-plugins is required: the directory that holds protoc-gen-go and its siblings")
	}

	sources, err := findSources(*dir)
	if err != nil {
		return err
	}
	request, err := compile(ctx, *dir, sources, stderr)
	if err != nil {
		return err
	}
	generated := make(map[string][]byte)
	for _, p := range plugins {
		if err := p.run(ctx, *pluginDir, request, generated); err != nil {
			return err
		}
	}
	if *check {
		return checkTree(*dir, generated)
	}
	return writeTree(*dir, generated)
}
