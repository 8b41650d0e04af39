package identity

import (
	"encoding/binary"
	"math"
	"strconv"

	"github.com/zeebo/xxh3"

	"watershed/schemas"
	"watershed/schemas/column"
)

// Payload returns a hash over all declared fields of one row, and the row's id as text. Two
// events of one identity whose payloads differ are a conflict.
func Payload(ev *schemas.Event, b *column.Block, row int) (hash uint64, id string, err error) {
	key := make([]byte, 0, 256)
	for _, f := range ev.Fields {
		v, err := b.Field(f.Name)
		if err != nil {
			return 0, "", err
		}
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
		if f.Name == ev.ID {
			id = text(v, row)
		}
	}
	return xxh3.Hash(key), id, nil
}

func text(v column.Vector, row int) string {
	if v.Kind == schemas.String {
		return v.Dict.Strings[v.Codes[row]]
	}
	return strconv.FormatInt(v.Ints[row], 10)
}
