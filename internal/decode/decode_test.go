package decode_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"watershed/internal/bounded"
	"watershed/internal/decode"
	"watershed/schemas"
	"watershed/schemas/column"
)

var logTime = time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)

func everyType() *schemas.Event {
	field := func(name string, t schemas.Type, optional bool) schemas.Field {
		return schemas.Field{Name: name, Type: t, Optional: optional}
	}
	return &schemas.Event{Name: "every", ID: "s", Time: "t", Fields: []schemas.Field{
		field("s", schemas.Type{Kind: schemas.String}, false),
		field("t", schemas.Type{Kind: schemas.Timestamp}, false),
		field("b", schemas.Type{Kind: schemas.Bool}, true),
		field("i", schemas.Type{Kind: schemas.Int64}, true),
		field("f", schemas.Type{Kind: schemas.Float64}, true),
		field("d", schemas.Type{Kind: schemas.Decimal, Precision: 9, Scale: 2}, true),
		field("big", schemas.Type{Kind: schemas.Decimal, Precision: 38, Scale: 0}, true),
		field("u", schemas.Type{Kind: schemas.Timestamp}, true),
		field("day", schemas.Type{Kind: schemas.Date}, true),
		field("o", schemas.Type{Kind: schemas.String}, true),
	}}
}

const base = `"s":"x","t":"2024-02-29T12:00:00Z"`

// fragments are what generated events are made of: each value of a field in the ways that
// matter, right and wrong.
var fragments = []string{
	`"s":""`, `"s":"\u00e9\ud83d\ude00\n\/"`, `"s":"é😀 long enough for eight"`, `"s":"\ud83d"`, `"s":"\ud83dx"`, `"s":"\ude00\ud83d"`, `"s":"\u12"`,
	`"s":"a` + "\x01" + `"`, `"s":"` + "\xff" + `"`, `"s":"12345678` + "\xc3" + `"`, `"s":"\x"`, `"s":1`, `"s":null`, `"s":"un`, `"s":{"a":[1]}`, `"\u0073":"key"`, `"S":"case"`,
	`"t":1709208000000000`, `"t":"2024-02-29 11:59:59.123456"`, `"t":"2024-02-29T23:59:59.999999999+01:30"`, `"t":"2023-02-29T00:00:00Z"`, `"t":0`, `"t":null`, `"t":"2024-02-29T12:00:00"`,
	`"t":"2025-01-01T00:00:00Z"`,
	`"b":true`, `"b":false`, `"b":null`, `"b":1`, `"b":"true"`, `"b":tru`, `"b":trueish`,
	`"i":0`, `"i":-0`, `"i":9223372036854775807`, `"i":9223372036854775808`, `"i":-9223372036854775808`, `"i":-9223372036854775809`, `"i":18446744073709551617`, `"i":1.0`, `"i":1e3`,
	`"i":01`, `"i":-`, `"i":+1`, `"i":"1"`, `"i":null`, `"i":1 2`, `"i":99999999999999999999999999`,
	`"f":0`, `"f":-0.0`, `"f":0.1`, `"f":1e22`, `"f":1e23`, `"f":123456789012345678`, `"f":1.7976931348623157e308`, `"f":1.8e308`, `"f":1e-400`, `"f":-1e-400`, `"f":5e-324`, `"f":NaN`, `"f":Infinity`,
	`"f":1.`, `"f":.5`, `"f":1e`, `"f":1e+`, `"f":0.30000000000000004`, `"f":9007199254740993`, `"f":1e99999999999999999999`, `"f":-12.50`, `"f":"1"`, `"f":0e5`,
	`"d":1.25`, `"d":"1.25"`, `"d":1.250`, `"d":1.255`, `"d":1234567.89`, `"d":12345678.9`, `"d":-1e6`, `"d":1e7`, `"d":125e-2`, `"d":125e-3`, `"d":"0.00000"`, `"d":" 1"`, `"d":"1 "`, `"d":""`,
	`"d":0e999999`, `"d":"-1234567.89"`, `"d":"1_0"`, `"d":1e-99999999999`, `"d":0.10000000000000000000000000000000000000000000`,
	`"big":99999999999999999999999999999999999999`, `"big":100000000000000000000000000000000000000`, `"big":-99999999999999999999999999999999999999`, `"big":1e37`, `"big":1e38`,
	`"big":170141183460469231731687303715884105728`, `"big":12345678901234567890123456789012345678`, `"big":0.5e1`,
	`"u":"1900-01-01T00:00:00Z"`, `"u":"1899-12-31T23:59:59Z"`, `"u":"2299-12-31T23:59:59.9999999Z"`, `"u":"2300-01-01T00:00:00Z"`, `"u":"2000-02-29T23:59:59-23:59"`, `"u":"1900-02-29T00:00:00Z"`,
	`"u":"2000-01-01T24:00:00Z"`, `"u":"2000-01-01T00:60:00Z"`, `"u":"2000-01-01T00:00:60Z"`, `"u":"2000-01-01T00:00:00.Z"`, `"u":"2000-01-01T00:00:00.1234567890Z"`, `"u":"2000-01-01t00:00:00z"`,
	`"u":"2000-01-01T00:00:00+24:00"`, `"u":"2000-13-01T00:00:00Z"`, `"u":"2000-00-01T00:00:00Z"`, `"u":"2000-04-31T00:00:00Z"`, `"u":"0000-01-01T00:00:00Z"`, `"u":-1`, `"u":-2208988800000000`, `"u":-2208988800000001`,
	`"u":10413791999999999`, `"u":10413792000000000`, `"u":1.5`, `"u":"2000-01-01 00:00:00Z"`, `"u":"2000-01-01T00:00:00,5Z"`, `"u":"1969-12-31T23:59:59.9999995Z"`,
	`"day":"2024-02-29"`, `"day":"2023-02-29"`, `"day":"1900-01-01"`, `"day":"1899-12-31"`, `"day":"2299-12-31"`, `"day":"2300-01-01"`, `"day":"2024-2-29"`, `"day":"2024-02-29 "`, `"day":19000`, `"day":null`,
	`"o":null`, `"o":"\"\\\b\f\r\t"`, `"o":"plain"`, `"o":nul`, `"o":nullx`,
	`"x":1`, `"x":"\ud800"`, `"x":["\u00e9",-0.5e+3,true,null,{"y":{},"z":[ ]}] , "x":1`, `"x":[1,]`, `"x":{"a":1,}`, `"x":{"a"}`, `"x":{1:2}`, `"x":01`, `"x":+1`, `"x":NaN`, `"x":"` + "\xff" + `"`, `"x":tru`, `"x":[1}`, `"x":`, `"x"`,
	`"x":{"deep":[[[[{}]]]]}`, `"":1`, `,`, `:`, `}`, `{`, ``, `"o" : "spaced"`, "\t\"i\"\r:\t5 ",
}

func lenient() *schemas.Event {
	ev := everyType()
	ev.IgnoreUnknown = true
	return ev
}

func TestFragmentsAgainstOracle(t *testing.T) {
	for _, ev := range []*schemas.Event{everyType(), lenient()} {
		testFragments(t, ev)
	}
}

func testFragments(t *testing.T, ev *schemas.Event) {
	for _, f := range fragments {
		for _, line := range []string{
			"{" + base + "," + f + "}", "{" + f + "," + base + "}", "{" + f + "}", `{"s":"x",` + f + "}", `{"t":1709208000000000,` + f + "}",
			" { " + f + " , " + base + " } ", "{" + base + "," + f, "{" + base + "," + f + "}x", "[" + f + "]", f,
		} {
			if err := compare(ev, []byte(line), logTime); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestRandomEventsAgainstOracle makes messages of random fragments in random order, and breaks
// some of them at a random byte.
func TestRandomEventsAgainstOracle(t *testing.T) {
	strict, loose := everyType(), lenient()
	rnd := rand.New(rand.NewPCG(3, 4))
	for n := range 20_000 {
		ev := strict
		if n%2 == 0 {
			ev = loose
		}
		var message []byte
		for range 1 + rnd.IntN(4) {
			parts := []string{`"s":"x"`, `"t":"2024-02-29T12:00:00Z"`}
			for range rnd.IntN(4) {
				parts = append(parts, fragments[rnd.IntN(len(fragments))])
			}
			if rnd.IntN(2) == 0 {
				rnd.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
			}
			line := []byte("{" + strings.Join(parts[rnd.IntN(2)*rnd.IntN(2):], ",") + "}")
			if rnd.IntN(4) == 0 {
				line[rnd.IntN(len(line))] = " \"\\{}[],:0e-\x80\n"[rnd.IntN(14)]
			}
			message = append(append(message, line...), []string{"\n", "\r\n", "\n \n"}[rnd.IntN(3)]...)
		}
		if err := compare(ev, message, logTime); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzAppend(f *testing.F) {
	for _, s := range fragments {
		f.Add([]byte("{" + base + "," + s + "}"))
	}
	strict, loose := everyType(), lenient()
	f.Fuzz(func(t *testing.T, message []byte) {
		for _, ev := range []*schemas.Event{strict, loose} {
			bounded.Run(t, func() {
				d := decode.New(ev, decode.Limits{})
				d.Append(message, 1, logTime)
			})
			if err := compare(ev, message, logTime); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestRejectsNameTheField(t *testing.T) {
	f := func(line, want string) {
		t.Helper()
		d := decode.New(everyType(), decode.Limits{Bytes: 200})
		rejects := d.Append([]byte(line), 9, logTime)
		if len(rejects) != 1 || !strings.Contains(rejects[0].Reason, want) || d.Rows() != 0 {
			t.Fatalf("%s: got %+v; want a reject with %q", line, rejects, want)
		}
		if r := rejects[0]; r.Seq != 9 || r.Type != "every" || !r.Time.Equal(logTime) || string(r.Payload) != line {
			t.Errorf("%s: got %+v; want its message, type, time and bytes", line, r)
		}
	}
	f(`{`+base+`,"zz":1}`, `field "zz": not declared`)
	f(`{`+base+`,"s":"y"}`, "field s: comes twice")
	f(`{"s":"x"}`, "field t: missing")
	f(`{`+base+`,"i":1.5}`, `field i: not an integer: "1.5"`)
	f(`{`+base+`,"i":9223372036854775808}`, "field i: beyond 64 bits")
	f(`{`+base+`,"b":"x"}`, "field b: want bool")
	f(`{`+base+`,"f":1e999}`, "field f: beyond float64")
	f(`{`+base+`,"d":1.255}`, "field d: more than 2 digits behind the point")
	f(`{`+base+`,"d":99999999}`, "field d: more than decimal(9,2) can hold")
	f(`{`+base+`,"i":[1]}`, "field i: want int64")
	f(`{`+base+`,"o":"`+"\xff"+`"}`, "field o: not UTF-8")
	f(`{`+base+`,"u":"2300-01-01T00:00:00Z"}`, "field u: not in the years 1900 to 2299")
	f(`{"s":null,"t":0}`, "field s: null, but not optional")
	f(`{"s":"x","t":0}`, "field t: 1970-01-01T00:00:00Z is not within")
	f(`nonsense`, "not a JSON object")
	f("\n \n", "message without an event")
	f(`{"s":"`+strings.Repeat("x", 200)+`"}`, "at most 200 are allowed")
}

func TestEventTimeIsHeldAgainstTheLog(t *testing.T) {
	limits := decode.Limits{Past: time.Hour, Future: time.Minute}
	f := func(eventTime time.Time, fits bool) {
		t.Helper()
		d := decode.New(everyType(), limits)
		d.Append(fmt.Appendf(nil, `{"s":"x","t":%d}`, eventTime.UnixMicro()), 1, logTime)
		if (d.Rows() == 1) != fits {
			t.Errorf("event at %s, log at %s: got %d rows; want it to fit: %t", eventTime, logTime, d.Rows(), fits)
		}
	}
	f(logTime.Add(-limits.Past), true)
	f(logTime.Add(-limits.Past-time.Microsecond), false)
	f(logTime.Add(limits.Future), true)
	f(logTime.Add(limits.Future+time.Microsecond), false)
}

// TestRecordsOverTime takes many records of columns with few and with many different strings,
// and reads them as views do.
func TestRecordsOverTime(t *testing.T) {
	ev := everyType()
	d := decode.New(ev, decode.Limits{})
	reader := column.NewReader()
	plain, coded := 0, 0
	var shared *column.Dict
	var held []arrow.Record
	n := 0
	for round := range 200 {
		first := n
		for range 100 {
			o := fmt.Sprintf(`,"o":"city %d"`, n%7)
			if n%10 == 3 {
				o = ""
			}
			line := fmt.Appendf(nil, `{"s":"id-%d","t":1709208000000000%s}`, n, o)
			if rejects := d.Append(line, uint64(n), logTime); len(rejects) > 0 {
				t.Fatal(rejects[0].Reason)
			}
			d.Append([]byte(`{"s":"refused","o":"refused too"}`), uint64(n), logTime)
			n++
		}
		if d.Rows() != 100 || d.Bytes() == 0 {
			t.Fatalf("round %d: %d rows of %d bytes; want 100", round, d.Rows(), d.Bytes())
		}
		rec := d.Record()
		held = append(held, rec)
		switch rec.Column(0).(type) {
		case *array.String:
			plain++
		case *array.Dictionary:
			coded++
		}
		block := reader.Block(rec)
		ids, err := block.Field("s")
		if err != nil {
			t.Fatal(err)
		}
		cities, err := block.Field("o")
		if err != nil {
			t.Fatal(err)
		}
		if round > 0 && cities.Dict != shared {
			t.Fatalf("round %d: the dictionary of few strings is not shared", round)
		}
		shared = cities.Dict
		for i := range 100 {
			if got, want := ids.Dict.Strings[ids.Codes[i]], fmt.Sprintf("id-%d", first+i); got != want {
				t.Fatalf("row %d: got id %s; want %s", first+i, got, want)
			}
			if null := (first+i)%10 == 3; null == cities.Valid[i] {
				t.Fatalf("row %d: null is %t", first+i, null)
			} else if got, want := cities.Dict.Strings[cities.Codes[i]], fmt.Sprintf("city %d", (first+i)%7); !null && got != want {
				t.Fatalf("row %d: got %s; want %s", first+i, got, want)
			}
		}
	}
	if plain == 0 || coded == 0 {
		t.Errorf("ids came plain %d times and as a dictionary %d times; want both, as it is tried again", plain, coded)
	}
	for round, rec := range held { // records handed out do not change
		if got, want := valueText(ev.Fields[0], rec.Column(0), 99), fmt.Sprintf("%q", fmt.Sprintf("id-%d", round*100+99)); got != want {
			t.Errorf("round %d: got %s; want %s", round, got, want)
		}
		rec.Release()
	}
}

func TestRecordSchema(t *testing.T) {
	ev := everyType()
	d := decode.New(ev, decode.Limits{})
	for range 2 { // with no rows and with one
		rec := d.Record()
		want := ev.ArrowSchema()
		for i, got := range rec.Schema().Fields() {
			typ := got.Type
			if dict, ok := typ.(*arrow.DictionaryType); ok && dict.IndexType.ID() == arrow.INT32 {
				typ = dict.ValueType
			}
			if w := want.Field(i); got.Name != w.Name || got.Nullable != w.Nullable || !arrow.TypeEqual(typ, w.Type) {
				t.Errorf("got field %v; want %v", got, w)
			}
		}
		rec.Release()
		d.Append([]byte("{"+base+"}"), 1, logTime)
	}
}

func TestPayloadIsNotKept(t *testing.T) {
	ev := everyType()
	d := decode.New(ev, decode.Limits{})
	payload := []byte(`{"s":"keep","t":1709208000000000,"o":"this"}`)
	d.Append(payload, 1, logTime)
	copy(payload, bytes.Repeat([]byte{'#'}, len(payload)))
	rec := d.Record()
	defer rec.Release()
	if got := values(ev, rec)[0]; got[0] != `"keep"` || got[len(got)-1] != `"this"` {
		t.Errorf("got %v; want the texts as they were given", got)
	}
}

func TestLineIsWhatAppendCounts(t *testing.T) {
	for _, payload := range []string{"", "\n", "a", "a\n", "\n \n{}\n\r\n  b\r\nc", "a\n\nb"} {
		d := decode.New(&schemas.Event{Name: "e", ID: "id", Time: "time", Fields: []schemas.Field{
			{Name: "id", Type: schemas.Type{Kind: schemas.Int64}}, {Name: "time", Type: schemas.Type{Kind: schemas.Timestamp}}}}, decode.Limits{})
		row := 0
		for _, r := range d.Append([]byte(payload), 1, time.Now()) { // none of them fits
			if r.Row < 0 {
				continue
			}
			if got := decode.Line([]byte(payload), r.Row); string(got) != string(r.Payload) || r.Row != row {
				t.Errorf("%q, row %d: got %q; want %q", payload, r.Row, got, r.Payload)
			}
			row++
		}
		if got := decode.Line([]byte(payload), row); got != nil {
			t.Errorf("%q has %d rows; got %q of another", payload, row, got)
		}
	}
}
