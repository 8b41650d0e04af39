package identity

import (
	"encoding/binary"
	"math"
	"strconv"

	"github.com/zeebo/xxh3"

	"watershed/schemas"
	"watershed/schemas/column"
)

// Payloads are the payloads of a block's rows.
type Payloads struct {
	vectors []column.Vector // by declared field
	id      column.Vector
	key     []byte
}

// PayloadsOf reads the columns of all declared fields, which the block must have.
func PayloadsOf(ev *schemas.Event, b *column.Block) (*Payloads, error) {
	p := &Payloads{vectors: make([]column.Vector, len(ev.Fields)), key: make([]byte, 0, 256)}
	for i, f := range ev.Fields {
		v, err := b.Field(f.Name)
		if err != nil {
			return nil, err
		}
		if p.vectors[i] = v; f.Name == ev.ID {
			p.id = v
		}
	}
	return p, nil
}

// Hash is a hash over all declared fields of a row. Two events of one identity whose payloads differ are
// a conflict.
func (p *Payloads) Hash(row int) uint64 {
	key := p.key[:0]
	for i := range p.vectors {
		v := &p.vectors[i]
		if v.Valid != nil && !v.Valid[row] {
			key = append(key, 0)
			continue
		}
		key = append(key, 1)
		switch v.Kind {
		case schemas.String:
			s := v.Dict.Strings[v.Codes[row]]
			key = binary.AppendUvarint(key, uint64(len(s)))
			key = append(key, s...)
		case schemas.Bool:
			key = strconv.AppendBool(key, v.Bools[row])
		case schemas.Float64:
			key = binary.LittleEndian.AppendUint64(key, math.Float64bits(v.Floats[row]))
		case schemas.Decimal:
			key = binary.LittleEndian.AppendUint64(key, v.Decimals[row].LowBits())
			key = binary.LittleEndian.AppendUint64(key, uint64(v.Decimals[row].HighBits()))
		default:
			key = binary.LittleEndian.AppendUint64(key, uint64(v.Ints[row]))
		}
	}
	p.key = key
	return xxh3.Hash(key)
}

// ID is a row's id as text.
func (p *Payloads) ID(row int) string { return text(p.id, row) }

func text(v column.Vector, row int) string {
	if v.Kind == schemas.String {
		return v.Dict.Strings[v.Codes[row]]
	}
	return strconv.FormatInt(v.Ints[row], 10)
}
