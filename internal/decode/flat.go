package decode

import "encoding/binary"

// A flat reads the tables of a FlatBuffer (flatbuffers.dev/internals), as Arrow's metadata is
// written. Nothing that it reads can lead it outside of its bytes: what would is 0, and makes it
// broken.
type flat struct {
	b      []byte
	broken bool
}

func (f *flat) bytes(at, n int) []byte {
	if at < 0 || n < 0 || at > len(f.b)-n {
		f.broken = true
		return nil
	}
	return f.b[at : at+n]
}

func (f *flat) u8(at int) int {
	if b := f.bytes(at, 1); b != nil {
		return int(b[0])
	}
	return 0
}

func (f *flat) u16(at int) int {
	if b := f.bytes(at, 2); b != nil {
		return int(binary.LittleEndian.Uint16(b))
	}
	return 0
}

func (f *flat) i32(at int) int {
	if b := f.bytes(at, 4); b != nil {
		return int(int32(binary.LittleEndian.Uint32(b)))
	}
	return 0
}

func (f *flat) i64(at int) int64 {
	if b := f.bytes(at, 8); b != nil {
		return int64(binary.LittleEndian.Uint64(b))
	}
	return 0
}

// to follows the offset at a place. Offsets lead forwards.
func (f *flat) to(at int) int {
	offset := f.i32(at)
	if offset <= 0 {
		f.broken = true
	}
	return at + offset
}

// field is where a table has a field, by its number; 0 if it has its default.
func (f *flat) field(table, number int) int {
	vtable := table - f.i32(table)
	slot := 4 + 2*number
	if slot+2 > f.u16(vtable) {
		return 0
	}
	if offset := f.u16(vtable + slot); offset > 0 {
		return table + offset
	}
	return 0
}

// child is the table that a field refers to; 0 if there is none.
func (f *flat) child(table, number int) int {
	if at := f.field(table, number); at > 0 {
		return f.to(at)
	}
	return 0
}

// vector is where the elements of a vector begin, and how many of size bytes there are.
func (f *flat) vector(table, number, size int) (at, n int) {
	at = f.child(table, number)
	if at == 0 {
		return 0, 0
	}
	n, at = f.i32(at), at+4
	if n < 0 || n > len(f.b)/size || f.bytes(at, n*size) == nil {
		f.broken = true
		return 0, 0
	}
	return at, n
}

func (f *flat) text(table, number int) []byte {
	at, n := f.vector(table, number, 1)
	return f.bytes(at, n)
}

func (f *flat) int(table, number, otherwise int) int {
	if at := f.field(table, number); at > 0 {
		return f.i32(at)
	}
	return otherwise
}

func (f *flat) short(table, number, otherwise int) int {
	if at := f.field(table, number); at > 0 {
		return f.u16(at)
	}
	return otherwise
}

func (f *flat) byte(table, number int) int {
	if at := f.field(table, number); at > 0 {
		return f.u8(at)
	}
	return 0
}

func (f *flat) long(table, number int) int64 {
	if at := f.field(table, number); at > 0 {
		return f.i64(at)
	}
	return 0
}
