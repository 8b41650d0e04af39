package history

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/parquet-go/parquet-go"
)

// maxPackedBlock keeps a few bytes from standing for very many integers. Writers make blocks of 128 to 1024.
const maxPackedBlock = 4096

var errPacked = errors.New("damaged packed integers")

// packedLength is the length in bytes of the delta-packed integers that data begins with, of which there
// must be n. What follows them is known only by walking their block headers: block size, miniblocks a
// block, values, first value; then for each block the least difference, the bit width of each
// miniblock, and the miniblocks. (Miniblocks behind the last value are not there.)
func packedLength(in []byte, n int) (int, error) {
	at := 0
	next := func() uint64 {
		v, k := binary.Uvarint(in[at:])
		if k <= 0 {
			at = len(in) + 1
			return 0
		}
		at += k
		return v
	}
	var head [4]uint64
	for i := range head {
		if at > len(in) {
			return 0, errPacked
		}
		head[i] = next()
	}
	block, minis := head[0], head[1]
	if at > len(in) || minis == 0 || minis > 512 || block == 0 || block > maxPackedBlock || block%minis != 0 || block/minis%8 != 0 {
		return 0, errPacked
	}
	if head[2] != uint64(n) {
		return 0, fmt.Errorf("%d packed values in a page of %d", head[2], n)
	}
	mini := int(block / minis)
	for left := n - 1; left > 0; {
		next()
		if at > len(in) || len(in)-at < int(minis) {
			return 0, errPacked
		}
		widths := in[at : at+int(minis)]
		at += int(minis)
		for _, w := range widths {
			if left <= 0 {
				break
			}
			if at += mini * int(w) / 8; at > len(in) {
				return 0, errPacked
			}
			left -= mini
		}
	}
	return at, nil
}

// decodePrefixed decodes strings of which each is given by how much it shares with the one before, and
// the rest of it (DELTA_BYTE_ARRAY). A short page can stand for very much text, so that is counted
// before it is made.
func decodePrefixed(in []byte, n int) ([]byte, []uint32, error) {
	end, err := packedLength(in, n)
	if err != nil {
		return nil, nil, fmt.Errorf("prefixes: %w", err)
	}
	prefixes, err := parquet.DeltaBinaryPacked.DecodeInt32(make([]int32, 0, n+64), in[:end])
	if err != nil {
		return nil, nil, fmt.Errorf("prefixes: %w", err)
	}
	if _, err := packedLength(in[end:], n); err != nil {
		return nil, nil, fmt.Errorf("rests: %w", err)
	}
	rest, ends, err := parquet.DeltaLengthByteArray.DecodeByteArray(nil, in[end:], make([]uint32, 0, n+1))
	if err != nil {
		return nil, nil, fmt.Errorf("rests: %w", err)
	}
	if len(prefixes) < n || len(ends) < n+1 {
		return nil, nil, errShort
	}
	offsets := make([]uint32, n+1)
	total, last := int64(0), int64(0)
	for i, p := range prefixes[:n] {
		if p < 0 || int64(p) > last {
			return nil, nil, fmt.Errorf("prefix of %d bytes of a string of %d", p, last)
		}
		last = int64(p) + int64(ends[i+1]-ends[i])
		if total += last; total > maxPageBytes {
			return nil, nil, fmt.Errorf("strings of more than %d bytes in a page", maxPageBytes)
		}
		offsets[i+1] = uint32(total)
	}
	out := make([]byte, total)
	before := out[:0]
	for i, p := range prefixes[:n] {
		s := out[offsets[i]:offsets[i+1]]
		copy(s, before[:p])
		copy(s[p:], rest[ends[i]:ends[i+1]])
		before = s
	}
	return out, offsets, nil
}
