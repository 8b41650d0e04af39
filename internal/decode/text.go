package decode

import (
	"hash/maphash"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
)

const (
	maxEntries   = 4096    // different strings that a dictionary holds
	maxEntryText = 1 << 20 // bytes of them
	plainRecords = 64      // records written plain after a dictionary was full, before one is tried again
)

// A text is a column of strings. It is a dictionary until that is full; then the record at
// hand and the next ones are plain strings.
type text struct {
	codes []int32
	dict  dictionary

	plain   bool
	again   int     // plain records to go before a dictionary is tried again
	offsets []int32 // plain: offsets[i] to offsets[i+1] in data, once there is a row
	data    []byte
}

func (t *text) append(s []byte) {
	if !t.plain {
		if code, ok := t.dict.code(s); ok {
			t.codes = append(t.codes, code)
			return
		}
		t.toPlain()
	}
	t.appendPlain(s)
}

func (t *text) appendPlain(s []byte) {
	if len(t.offsets) == 0 {
		t.offsets = append(t.offsets, 0)
	}
	t.data = append(t.data, s...)
	t.offsets = append(t.offsets, int32(len(t.data)))
}

func (t *text) appendNull() {
	if t.plain {
		t.appendPlain(nil)
		return
	}
	t.codes = append(t.codes, 0)
}

func (t *text) truncate(n int) {
	if t.plain {
		if len(t.offsets) > n+1 {
			t.offsets = t.offsets[:n+1]
			t.data = t.data[:t.offsets[n]]
		}
		return
	}
	t.codes = t.codes[:min(n, len(t.codes))]
}

// toPlain rewrites the record at hand as plain strings and forgets the full dictionary.
func (t *text) toPlain() {
	t.plain, t.again = true, plainRecords
	for _, code := range t.codes {
		t.appendPlain(t.dict.entry(code)) // a null's code 0 takes some entry's text, which nobody reads
	}
	t.codes, t.dict = nil, dictionary{}
}

// take hands over the n rows as an array and starts anew.
func (t *text) take(n int, valid *memory.Buffer, nulls int) arrow.Array {
	if t.plain {
		if len(t.offsets) == 0 {
			t.offsets = append(t.offsets, 0)
		}
		data := array.NewData(arrow.BinaryTypes.String, n, []*memory.Buffer{valid,
			memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(t.offsets)), memory.NewBufferBytes(t.data)}, nil, nulls, 0)
		defer data.Release()
		t.offsets, t.data = make([]int32, 0, n+1), make([]byte, 0, len(t.data))
		if t.again--; t.again == 0 {
			t.plain, t.offsets, t.data = false, nil, nil
		}
		return array.NewStringData(data)
	}
	data := array.NewDataWithDictionary(
		&arrow.DictionaryType{IndexType: arrow.PrimitiveTypes.Int32, ValueType: arrow.BinaryTypes.String}, n,
		[]*memory.Buffer{valid, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(t.codes))}, nulls, 0, t.dict.values())
	defer data.Release()
	t.codes = make([]int32, 0, n)
	return array.NewDictionaryData(data)
}

// A dictionary gives strings small numbers. It is an open-addressing table over strings that
// lie one behind the other, as in an Arrow string array. Entries are only ever added, so the
// arrays handed out share memory with it and stay as they are.
type dictionary struct {
	seed    maphash.Seed
	table   []int32 // 1 + code, 0 for a free place; its size is a power of two
	offsets []int32
	data    []byte
	array   *array.Data // of the first arrayLen entries
	length  int
}

// code returns the number of s, which is added if there is room.
func (d *dictionary) code(s []byte) (int32, bool) {
	if d.table == nil {
		d.seed, d.table, d.offsets = maphash.MakeSeed(), make([]int32, 2*maxEntries), []int32{0}
	}
	mask := uint64(len(d.table) - 1)
	at := maphash.Bytes(d.seed, s) & mask
	for ; d.table[at] != 0; at = (at + 1) & mask {
		code := d.table[at] - 1
		if string(d.entry(code)) == string(s) {
			return code, true
		}
	}
	code := int32(len(d.offsets) - 1)
	if code == maxEntries || len(d.data)+len(s) > maxEntryText {
		return 0, false
	}
	d.table[at] = code + 1
	d.data = append(d.data, s...)
	d.offsets = append(d.offsets, int32(len(d.data)))
	return code, true
}

func (d *dictionary) entry(code int32) []byte {
	if int(code)+1 >= len(d.offsets) {
		return nil // the code of a null while there are no entries
	}
	return d.data[d.offsets[code]:d.offsets[code+1]]
}

// values is the entries as an array, the same one as long as none is added.
func (d *dictionary) values() *array.Data {
	if d.offsets == nil {
		d.offsets = []int32{0}
	}
	if n := len(d.offsets) - 1; d.array == nil || n != d.length {
		d.length = n
		d.array = array.NewData(arrow.BinaryTypes.String, n, []*memory.Buffer{nil,
			memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(d.offsets[: n+1 : n+1])),
			memory.NewBufferBytes(d.data[:len(d.data):len(d.data)])}, nil, 0, 0)
	}
	return d.array
}
