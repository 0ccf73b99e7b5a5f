package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/pluginpb"
)

// plugin is one code generator that speaks the protoc plugin protocol.
type plugin struct {
	name      string
	parameter string
}

var plugins = []plugin{
	{"protoc-gen-go", "paths=source_relative"},
	{"protoc-gen-go-grpc", "paths=source_relative"},
	{"protoc-gen-grpc-gateway", "paths=source_relative,generate_unbound_methods=false"},
}

// run hands the request to the plugin and adds what it generates to generated,
// keyed by the slash-separated path relative to the proto root.
func (p plugin) run(ctx context.Context, dir string, request *pluginpb.CodeGeneratorRequest, generated map[string][]byte) error {
	request.Parameter = proto.String(p.parameter)
	input, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	if err != nil {
		return fmt.Errorf("%s: encode the request: %w", p.name, err)
	}
	binary, err := filepath.Abs(filepath.Join(dir, p.name))
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, binary)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", p.name, err, stderr.Bytes())
	}
	var response pluginpb.CodeGeneratorResponse
	if err := proto.Unmarshal(stdout.Bytes(), &response); err != nil {
		return fmt.Errorf("%s: decode the response: %w", p.name, err)
	}
	if response.Error != nil {
		return fmt.Errorf("%s: %s", p.name, response.GetError())
	}
	for _, file := range response.GetFile() {
		if file.GetName() == "" || file.GetInsertionPoint() != "" {
			return fmt.Errorf("%s: asks to insert into the output of another plugin, which protogen does not support", p.name)
		}
		if _, taken := generated[file.GetName()]; taken {
			return fmt.Errorf("%s: generates %s, which another plugin generates too", p.name, file.GetName())
		}
		generated[file.GetName()] = []byte(file.GetContent())
	}
	return nil
}
