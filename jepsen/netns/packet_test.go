package netns

import (
	"encoding/binary"
	"testing"
)

func FuzzResetFor(f *testing.F) {
	syn := make([]byte, 40)
	syn[0], syn[9], syn[32], syn[33] = 0x45, protoTCP, 5<<4, flagSYN
	f.Add(syn)
	f.Add([]byte{0x4f, 0})
	f.Fuzz(func(t *testing.T, packet []byte) {
		_, _ = destination(packet)
		reset := resetFor(packet)
		if reset == nil {
			return
		}
		if len(reset) != ipv4Header+tcpHeader || reset[ipv4Header+13]&flagRST == 0 || resetFor(reset) != nil {
			t.Fatalf("%x is answered by %x", packet, reset)
		}
		// A correct checksum makes the sum of everything all ones.
		if checksum(0, reset[:ipv4Header]) != 0 {
			t.Error("the checksum of the IP header is wrong")
		}
		pseudo := binary.BigEndian.AppendUint32(append([]byte(nil), reset[12:20]...), protoTCP<<16|tcpHeader)
		if checksum(sum(0, pseudo), reset[ipv4Header:]) != 0 {
			t.Error("the checksum of the TCP header is wrong")
		}
	})
}
