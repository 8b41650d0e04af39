package column_test

import (
	"errors"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/memory"
	"pgregory.net/rapid"

	"watershed/schemas"
	"watershed/schemas/agg/aggtest"
	"watershed/schemas/column"
)

// valueAt is a vector's value in the form that aggtest draws; nil if it is null.
func valueAt(v column.Vector, i int) any {
	if v.Valid != nil && !v.Valid[i] {
		return nil
	}
	switch v.Kind {
	case schemas.String:
		return v.Dict.Strings[v.Codes[i]]
	case schemas.Bool:
		return v.Bools[i]
	case schemas.Float64:
		return v.Floats[i]
	case schemas.Decimal:
		return v.Decimals[i]
	}
	return v.Ints[i]
}

// A block's vectors hold what the record holds, whatever the type, also where the record is a
// slice of another and where strings are a dictionary.
func TestField(t *testing.T) {
	for _, name := range []string{"string", "bool", "int64", "float64", "decimal(18,2)", "timestamp", "date"} {
		typ, err := schemas.ParseType(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(r *rapid.T) {
				draw := aggtest.Draw(typ)
				want := rapid.SliceOf(rapid.OneOf(draw, draw, rapid.Just[any](nil))).Draw(r, "values")
				arr := aggtest.Array(typ, want, rapid.Bool().Draw(r, "dictionary"))
				from := rapid.IntRange(0, len(want)).Draw(r, "from")
				arr = array.NewSlice(arr, int64(from), int64(len(want)))
				rec := array.NewRecord(arrow.NewSchema([]arrow.Field{{Name: "f", Type: arr.DataType(), Nullable: true}}, nil), []arrow.Array{arr}, int64(arr.Len()))
				b := column.NewReader().Block(rec)
				v, err := b.Field("f")
				if err != nil {
					r.Fatal(err)
				}
				if v.Kind != typ.Kind || b.Len() != len(want)-from {
					r.Fatalf("got kind %v of %d rows; want %v of %d", v.Kind, b.Len(), typ.Kind, len(want)-from)
				}
				for i, x := range want[from:] {
					if got := valueAt(v, i); got != x {
						r.Fatalf("row %d is %v; want %v", i, got, x)
					}
				}
			})
		})
	}
}

// Blocks of one dictionary share it, so that what is computed per entry can be kept by it.
func TestDictionaryIsShared(t *testing.T) {
	typ := schemas.Type{Kind: schemas.String}
	whole := aggtest.Array(typ, []any{"a", "b", "a"}, true)
	reader := column.NewReader()
	var dicts []*column.Dict
	for i := range int64(2) {
		part := array.NewSlice(whole, i, 3)
		rec := array.NewRecord(arrow.NewSchema([]arrow.Field{{Name: "f", Type: part.DataType()}}, nil), []arrow.Array{part}, 3-i)
		v, err := reader.Block(rec).Field("f")
		if err != nil {
			t.Fatal(err)
		}
		dicts = append(dicts, v.Dict)
	}
	if dicts[0] != dicts[1] {
		t.Error("two blocks of one dictionary have two")
	}
}

func TestMemo(t *testing.T) {
	b := array.NewInt64Builder(memory.DefaultAllocator)
	b.Append(1)
	arr := b.NewArray()
	block := column.NewReader().Block(array.NewRecord(arrow.NewSchema([]arrow.Field{{Name: "f", Type: arr.DataType()}}, nil), []arrow.Array{arr}, 1))
	boom, calls := errors.New("boom"), 0
	compute := func() (column.Vector, error) {
		if calls++; calls == 1 {
			return column.Vector{}, boom
		}
		return column.Vector{Kind: schemas.Bool}, nil
	}
	if _, err := block.Memo("k", compute); !errors.Is(err, boom) {
		t.Errorf("got %v; want %v", err, boom)
	}
	for range 3 {
		if v, err := block.Memo("k", compute); err != nil || v.Kind != schemas.Bool {
			t.Errorf("got %v, %v", v, err)
		}
	}
	if calls != 2 {
		t.Errorf("computed %d times; want 2: errors are not kept, values are", calls)
	}
	for _, name := range []string{"k", "absent"} {
		if _, err := block.Field(name); err == nil {
			t.Errorf("a record without it has field %s", name)
		}
	}
}
