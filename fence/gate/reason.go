//writ:core

package gate

import (
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	writv1 "github.com/writ-io/writ/api/writ/v1"
)

// errorOf reads reason and message of an error. It goes by reflection, because the message's own package is not one that a
// core may use.
func errorOf(m *writv1.GuardResponse) (reason, text string) {
	outer := m.ProtoReflect()
	status := outer.Get(outer.Descriptor().Fields().ByName("error")).Message()
	fields := status.Descriptor().Fields()
	text = status.Get(fields.ByName("message")).String()
	details := status.Get(fields.ByName("details")).List()
	for i := range details.Len() {
		detail := details.Get(i).Message()
		fields := detail.Descriptor().Fields()
		if strings.HasSuffix(detail.Get(fields.ByName("type_url")).String(), "/google.rpc.ErrorInfo") {
			return reasonOf(detail.Get(fields.ByName("value")).Bytes()), text
		}
	}
	return "", text
}

// reasonOf reads the reason of an encoded google.rpc.ErrorInfo.
func reasonOf(info []byte) string {
	const reasonField = 1
	for len(info) > 0 {
		number, kind, n := protowire.ConsumeTag(info)
		if n < 0 {
			return ""
		}
		info = info[n:]
		if number == reasonField && kind == protowire.BytesType {
			value, n := protowire.ConsumeString(info)
			if n < 0 {
				return ""
			}
			return value
		}
		if n = protowire.ConsumeFieldValue(number, kind, info); n < 0 {
			return ""
		}
		info = info[n:]
	}
	return ""
}
