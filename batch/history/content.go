package history

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/bits"
)

// A contentSum adds up the contents of files, as 256-bit numbers that wrap. So it depends neither on the
// order of the files nor on how their events are divided among them: what a compaction writes has the
// contents whose sum is that of what it read. That two sets of files have one sum by accident is as
// unlikely as that two files have one SHA-256; it does not withstand somebody who may write files at will.
type contentSum [4]uint64

// contentOf is a content as a number. That of a file that was written once is its SHA-256; any other text
// is hashed.
func contentOf(content string) (s contentSum) {
	b, err := hex.DecodeString(content)
	if err != nil || len(b) != sha256.Size {
		sum := sha256.Sum256([]byte(content))
		b = sum[:]
	}
	for i := range s {
		s[i] = binary.BigEndian.Uint64(b[8*(len(s)-1-i):])
	}
	return s
}

func (s contentSum) add(o contentSum) contentSum {
	carry := uint64(0)
	for i := range s {
		s[i], carry = bits.Add64(s[i], o[i], carry)
	}
	return s
}

func (s contentSum) sub(o contentSum) contentSum {
	borrow := uint64(0)
	for i := range s {
		s[i], borrow = bits.Sub64(s[i], o[i], borrow)
	}
	return s
}

func (s contentSum) String() string {
	b := make([]byte, 0, sha256.Size)
	for i := range s {
		b = binary.BigEndian.AppendUint64(b, s[len(s)-1-i])
	}
	return hex.EncodeToString(b)
}

// Content names the set of events in files. It is the same before and after a compaction of them, and
// after one that removed duplicates too: states are those of distinct events. Any other change of the
// files changes it.
func Content(files []File) string {
	var sum contentSum
	for _, f := range files {
		sum = sum.add(contentOf(f.Content))
	}
	return sum.String()
}
