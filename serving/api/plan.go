package api

import "watershed/schemas/view"

// ViewOf is what queries need of a plan.
func ViewOf(p *view.Plan) View {
	v := View{Definition: p.View, Plan: p.Hash}
	for _, d := range p.Dimensions {
		v.Dimensions = append(v.Dimensions, Dimension{Name: d.Name, Type: d.Type, Nullable: d.Nullable, Bucket: d.Bucket})
	}
	for _, m := range p.Measures {
		columns := make([]string, len(m.Columns))
		for i, c := range m.Columns {
			columns[i] = c.Name
		}
		v.Measures = append(v.Measures, Measure{Name: m.Name, Columns: columns, Func: m.Func})
	}
	return v
}
