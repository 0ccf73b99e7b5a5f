package quorum

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/writ-io/writ/region"
)

// Region asks the machine of failover groups. The answer is the response of the call that cmd.Ask is the request of.
func (s *Service) Region(ctx context.Context, cmd region.Command) (proto.Message, error) {
	return answered[proto.Message](s.do(ctx, cmd))
}
