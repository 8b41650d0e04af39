package api

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/goccy/go-yaml"
	"go.opentelemetry.io/otel/trace"

	"watershed/internal/traces"
	"watershed/schemas"
)

// viewInfo is a view as GET /v1/views shows it.
type viewInfo struct {
	Name       string          `json:"name"`
	From       string          `json:"from" doc:"The event type"`
	Where      string          `json:"where,omitempty" doc:"Which events count"`
	Time       string          `json:"time,omitempty" doc:"The dimension that from, to and grain are about"`
	Dimensions []dimensionInfo `json:"dimensions"`
	Measures   []measureInfo   `json:"measures"`
	Definition string          `json:"definition" doc:"As in a view file"`
	Plan       string          `json:"plan" doc:"Hash of the compiled view"`
	Covered    bool            `json:"covered" doc:"The live build covers it: it can be queried"`
	Epoch      uint64          `json:"epoch" doc:"Where its states end: the epoch"`
	Position   uint64          `json:"position" doc:"Where its states end: the sequence in the log"`
}

type dimensionInfo struct {
	Name     string `json:"name"`
	Is       string `json:"is" doc:"Its expression"`
	Type     string `json:"type"`
	Nullable bool   `json:"nullable"`
	Bucket   string `json:"bucket,omitempty" doc:"Width, if it is a time bucket"`
}

type measureInfo struct {
	Name string `json:"name"`
	Is   string `json:"is" doc:"Its expression"`
	Type string `json:"type" doc:"ClickHouse's type of the finished value"`
}

type viewsOutput struct {
	Body struct {
		Live  LiveInfo   `json:"live"`
		Views []viewInfo `json:"views"`
	}
}

func (a *api) listViews(ctx context.Context, in *struct{ request }) (*viewsOutput, error) {
	if err := only(in.query); err != nil {
		return nil, err
	}
	views, err := a.deps.Catalog.Views(ctx)
	if err != nil {
		return nil, problemOf(ctx, err)
	}
	live, err := a.deps.Catalog.Live(ctx)
	if err != nil {
		return nil, problemOf(ctx, err)
	}
	build, buildErr := a.deps.Catalog.Build(ctx, live.Build)
	marks, marksErr := a.deps.Catalog.Positions(ctx, views)
	if err := errors.Join(buildErr, marksErr); err != nil {
		return nil, problemOf(ctx, err)
	}
	out := &viewsOutput{}
	out.Body.Live = newLiveInfo(live)
	out.Body.Views = make([]viewInfo, 0, len(views))
	for _, v := range views {
		info, err := describe(v)
		if err != nil {
			return nil, problem(Internal, "describe view %s: %w", v.Name(), err)
		}
		_, info.Covered = build.Plans[v.Plan]
		info.Epoch, info.Position = marks[v.Plan].Epoch, marks[v.Plan].Position.Seq
		out.Body.Views = append(out.Body.Views, info)
	}
	slices.SortFunc(out.Body.Views, func(x, y viewInfo) int { return strings.Compare(x.Name, y.Name) })
	return out, nil
}

func describe(v View) (viewInfo, error) {
	text, err := definitionText(v.Definition)
	info := viewInfo{Name: v.Name(), From: v.Definition.From, Where: v.Definition.Where.Text, Definition: text, Plan: v.Plan,
		Dimensions: make([]dimensionInfo, len(v.Dimensions)), Measures: make([]measureInfo, len(v.Measures))}
	if t := v.time(); t != nil {
		info.Time = t.Name
	}
	for i, d := range v.Dimensions {
		info.Dimensions[i] = dimensionInfo{Name: d.Name, Is: expressionOf(v.Definition.Dimensions, d.Name), Type: d.Type.String(), Nullable: d.Nullable}
		if d.Bucket > 0 {
			info.Dimensions[i].Bucket = d.Bucket.String()
		}
	}
	for i, m := range v.Measures {
		info.Measures[i] = measureInfo{Name: m.Name, Is: expressionOf(v.Definition.Measures, m.Name), Type: m.Func.ResultType()}
	}
	return info, err
}

func expressionOf(all []schemas.Definition, name string) string {
	for _, d := range all {
		if d.Name == name {
			return d.Expression.Text
		}
	}
	return ""
}

// definitionText is the view as a view file has it.
func definitionText(v *schemas.View) (string, error) {
	pairs := func(all []schemas.Definition) yaml.MapSlice {
		out := yaml.MapSlice{}
		for _, d := range all {
			out = append(out, yaml.MapItem{Key: d.Name, Value: d.Expression.Text})
		}
		return out
	}
	doc := yaml.MapSlice{{Key: "view", Value: v.Name}, {Key: "from", Value: v.From}}
	if !v.Where.IsZero() {
		doc = append(doc, yaml.MapItem{Key: "where", Value: v.Where.Text})
	}
	doc = append(doc, yaml.MapItem{Key: "dimensions", Value: pairs(v.Dimensions)}, yaml.MapItem{Key: "measures", Value: pairs(v.Measures)})
	text, err := yaml.Marshal(doc)
	return string(text), err
}

// viewInput documents the parameters of a typed query; compile reads them out of the request.
type viewInput struct {
	outputParameters
	View       string   `path:"view" doc:"The view's name"`
	Dimensions string   `query:"dimensions" doc:"What to group by, separated by commas; default all; empty: none"`
	Measures   string   `query:"measures" doc:"What to measure, separated by commas; default all"`
	Grain      string   `query:"grain" doc:"A coarser bucket for the time dimension, like 1d: a multiple of its width"`
	From       string   `query:"from" doc:"RFC 3339 or a date: buckets that start then or later"`
	To         string   `query:"to" doc:"RFC 3339 or a date: buckets that start earlier"`
	Filter     []string `query:"filter,explode" doc:"dimension:value; repeated for one dimension: any of the values"`
	Null       []string `query:"null,explode" doc:"A dimension: groups without a value there"`
	Order      string   `query:"order" doc:"Dimensions and measures, separated by commas; a minus sign: descending"`
	Limit      string   `query:"limit" doc:"At most so many rows"`
}

func (a *api) queryView(ctx context.Context, in *viewInput) (*huma.StreamResponse, error) {
	view, err := a.viewOf(ctx, in.View)
	if err != nil {
		return nil, err
	}
	trace.SpanFromContext(ctx).SetAttributes(traces.View.String(view.Name()))
	sql, parameters, err := compile(view, in.query)
	if err != nil {
		return nil, err
	}
	f, q, err := a.output(in.request)
	if err != nil {
		return nil, err
	}
	t, err := a.token(in.request, in.View)
	if err != nil {
		return nil, err
	}
	q.SQL, q.Parameters = sql, parameters
	return a.answer(ctx, []View{view}, q, f, t)
}
