package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/writ-io/writ/cmd/writ/agent"
)

func (a *app) agentCommand(version string) *cobra.Command {
	var path string
	var example, checkOnly bool
	cmd := &cobra.Command{
		Use:   "agent --config agent.yaml",
		Short: "Look after a region's data: report how it does, and run the hooks of promotions",
		Long: `Look after a region's data, until SIGTERM or SIGINT: report to the quorum how it does, and run the hooks that
promotions ask for. How the quorum is reached stands in the configuration.

Keys of the configuration can also be set in the environment: quorum.endpoints as WRIT_AGENT_QUORUM__ENDPOINTS.`,
		Args: arguments(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if example {
				_, err := io.WriteString(a.stdout, agent.Example)
				return err
			}
			config, err := agent.Load(path, os.Environ())
			if err != nil {
				return err
			}
			if checkOnly {
				_, err := fmt.Fprintf(a.stdout, "configuration %s: good\n", path)
				return err
			}
			return agent.Run(cmd.Context(), config, version, config.NewLogger(a.stderr))
		},
	}
	cmd.Flags().StringVar(&path, "config", "", "the configuration `file` (YAML)")
	cmd.Flags().BoolVar(&checkOnly, "check-config", false, "check the configuration and the files that it names, and exit")
	cmd.Flags().BoolVar(&example, "example", false, "print a configuration with every key, and exit")
	return cmd
}
