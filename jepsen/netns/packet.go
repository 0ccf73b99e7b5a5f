package netns

import "encoding/binary"

const (
	ipv4Header = 20
	tcpHeader  = 20
	protoTCP   = 6
	flagFIN    = 0x01
	flagSYN    = 0x02
	flagRST    = 0x04
	flagACK    = 0x10
)

// destination is the number of the party that an IPv4 packet is for; false for everything else.
func destination(packet []byte) (int, bool) {
	if len(packet) < ipv4Header || packet[0]>>4 != 4 || packet[16] != 10 || packet[17] != 77 || packet[18] != 0 || packet[19] == 0 {
		return 0, false
	}
	return int(packet[19]) - 1, true
}

// resetFor is what answers a TCP packet whose connection is refused or broken: RST, as RFC 9293 section 3.10.7.1 has it for a
// connection that does not exist. nil for everything else, and for a reset.
func resetFor(packet []byte) []byte {
	if len(packet) < ipv4Header || packet[0]>>4 != 4 || packet[9] != protoTCP {
		return nil
	}
	header := int(packet[0]&0x0f) * 4
	// What is a fragment but the first has no TCP header.
	if header < ipv4Header || len(packet) < header+tcpHeader || binary.BigEndian.Uint16(packet[6:])&0x1fff != 0 {
		return nil
	}
	segment := packet[header:]
	flags := segment[13]
	if flags&flagRST != 0 {
		return nil
	}
	out := make([]byte, ipv4Header+tcpHeader)
	out[0] = 0x45
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	out[8], out[9] = 64, protoTCP
	copy(out[12:16], packet[16:20])
	copy(out[16:20], packet[12:16])
	tcp := out[ipv4Header:]
	copy(tcp[0:2], segment[2:4])
	copy(tcp[2:4], segment[0:2])
	tcp[12] = tcpHeader / 4 << 4
	if flags&flagACK != 0 {
		copy(tcp[4:8], segment[8:12])
		tcp[13] = flagRST
	} else {
		length := uint32(len(segment) - int(segment[12]>>4)*4)
		if flags&flagSYN != 0 {
			length++
		}
		if flags&flagFIN != 0 {
			length++
		}
		binary.BigEndian.PutUint32(tcp[8:], binary.BigEndian.Uint32(segment[4:])+length)
		tcp[13] = flagRST | flagACK
	}
	binary.BigEndian.PutUint16(out[10:], checksum(0, out[:ipv4Header]))
	// The pseudo header: both addresses, the protocol, the length.
	pseudo := append(append([]byte(nil), out[12:20]...), 0, protoTCP, 0, byte(len(tcp)))
	binary.BigEndian.PutUint16(tcp[16:], checksum(sum(0, pseudo), tcp))
	return out
}

func sum(start uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		start += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		start += uint32(b[0]) << 8
	}
	return start
}

// checksum is the Internet checksum (RFC 1071) of an even number of bytes before and b.
func checksum(start uint32, b []byte) uint16 {
	s := sum(start, b)
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}
