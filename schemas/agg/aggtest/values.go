package aggtest

import (
	"math/big"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"
	"github.com/apache/arrow/go/v15/arrow/decimal128"
	"pgregory.net/rapid"

	"watershed/schemas"
)

func drawDecimal(t schemas.Type) *rapid.Generator[decimal128.Num] {
	limit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(t.Precision)), nil)
	limit.Sub(limit, big.NewInt(1))
	whole := rapid.Custom(func(r *rapid.T) decimal128.Num {
		x := new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(r, "digits"))
		x.Rem(x, limit)
		if rapid.Bool().Draw(r, "negative") {
			x.Neg(x)
		}
		return decimal128.FromBigInt(x)
	})
	small := rapid.Map(rapid.Int64Range(-9, 9), decimal128.FromI64)
	return rapid.OneOf(small, whole,
		rapid.SampledFrom([]decimal128.Num{decimal128.FromBigInt(limit), decimal128.FromBigInt(new(big.Int).Neg(limit))}))
}

func appendValue(b array.Builder, v any) {
	if v == nil {
		b.AppendNull()
		return
	}
	switch b := b.(type) {
	case *array.Int64Builder:
		b.Append(v.(int64))
	case *array.Float64Builder:
		b.Append(v.(float64))
	case *array.BooleanBuilder:
		b.Append(v.(bool))
	case *array.StringBuilder:
		b.Append(v.(string))
	case *array.Decimal128Builder:
		b.Append(v.(decimal128.Num))
	case *array.TimestampBuilder:
		b.Append(arrow.Timestamp(v.(int64)))
	case *array.Date32Builder:
		b.Append(arrow.Date32(v.(int64)))
	}
}
