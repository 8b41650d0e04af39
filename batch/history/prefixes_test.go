package history

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
)

// prefixed encodes strings by the Parquet library.
func prefixed(t testing.TB, values []string) []byte {
	t.Helper()
	offsets := []uint32{0}
	for _, v := range values {
		offsets = append(offsets, offsets[len(offsets)-1]+uint32(len(v)))
	}
	out, err := parquet.DeltaByteArray.EncodeByteArray(nil, []byte(strings.Join(values, "")), offsets)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPrefixedStrings(t *testing.T) {
	r := newRand(61)
	for _, n := range []int{1, 2, 31, 32, 33, 34, 128, 129, 130, 1000} {
		for _, shape := range []func(i int) string{
			func(i int) string { return fmt.Sprint("id-", i) },
			func(int) string { return strings.Repeat("ab", r.IntN(40)) },
			func(int) string { return "" },
			func(int) string { return fmt.Sprintf("%x", r.Uint64()>>r.IntN(64)) },
			func(i int) string { return strings.Repeat("x", 300*(i%2)) },
		} {
			want := make([]string, n)
			for i := range want {
				want[i] = shape(i)
			}
			data, offsets, err := decodePrefixed(prefixed(t, want), n)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]string, n)
			for i := range got {
				got[i] = string(data[offsets[i]:offsets[i+1]])
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%d strings: got %q; want %q", n, got, want)
			}
		}
	}
}

// A page may not stand for more text than a page may hold: here each string is the whole of the one before.
func TestPrefixedStringsAreBounded(t *testing.T) {
	const size = 64 << 10
	n := maxPageBytes/size + 1
	shared, ends := slices.Repeat([]int32{size}, n), slices.Repeat([]uint32{size}, n+1)
	shared[0], ends[0] = 0, 0
	head, err := parquet.DeltaBinaryPacked.EncodeInt32(nil, shared)
	if err != nil {
		t.Fatal(err)
	}
	rest, err := parquet.DeltaLengthByteArray.EncodeByteArray(nil, make([]byte, size), ends)
	if err != nil {
		t.Fatal(err)
	}
	in := append(head, rest...)
	if _, _, err := decodePrefixed(in, n); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("%d bytes that stand for %d: got %v; want a refusal", len(in), n*size, err)
	}
	if _, _, err := decodePrefixed(in, n-1); err == nil {
		t.Error("a page of more strings than it has rows was decoded")
	}
}

func FuzzPrefixedStrings(f *testing.F) {
	f.Add(prefixed(f, []string{"a", "ab", "abc", ""}), 4)
	f.Add(prefixed(f, slices.Repeat([]string{"ab"}, 300)), 300)
	f.Add(bytes.Repeat(binary.AppendUvarint(nil, 1<<62), 4), 1)
	f.Fuzz(func(t *testing.T, in []byte, n int) {
		if n <= 0 || n > pageRows {
			return
		}
		data, offsets, err := decodePrefixed(in, n)
		if err == nil && (len(offsets) != n+1 || int(offsets[n]) != len(data) || !slices.IsSorted(offsets)) {
			t.Fatalf("%d offsets to %d of %d bytes", len(offsets), offsets[len(offsets)-1], len(data))
		}
	})
}
