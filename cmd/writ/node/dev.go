package node

import "github.com/spf13/cobra"

func devCommand(string) *cobra.Command { return &cobra.Command{Use: "dev"} }
