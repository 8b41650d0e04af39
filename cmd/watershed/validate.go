package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"watershed/schemas"
	"watershed/schemas/view"
)

func (a *app) validateCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "validate [DIR]",
		Short: "Check event and view files, and print every mistake",
		Long: `Check the event and view files of a directory as the other commands would: keys, types,
names, and each expression. Every mistake is printed with its place; nothing is changed.`,
		Example: `  watershed validate
  watershed validate ./schemas --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := a.cfg.Definitions
			if len(args) == 1 {
				dir = args[0]
			}
			set, from, err := loadDefinitions(dir)
			if err != nil {
				return a.invalid(err, asJSON)
			}
			plans, err := view.CompileSet(set)
			if err != nil {
				return a.invalid(err, asJSON)
			}
			if asJSON {
				return a.printJSON(validated(from, set, plans))
			}
			fmt.Fprintf(a.stdout, "%s: %d events, %d views, no mistakes\n", from, len(set.Events), len(set.Views))
			for _, p := range plans {
				fmt.Fprintf(a.stdout, "  %s  %s from %s\n", p.Hash[:8], p.Name(), p.Event.Name)
				for _, m := range p.Measures {
					if m.Func.Name() == "distinct" {
						fmt.Fprintf(a.stdout, "            %s keeps every different value of each group; uniq keeps at most 65,536 hashes\n", m.Name)
					}
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// invalid reports mistakes in definitions: as JSON on standard output if that is wanted.
func (a *app) invalid(err error, asJSON bool) error {
	var found schemas.Errors
	if !asJSON || !errors.As(err, &found) {
		return err
	}
	type mistake struct {
		File    string `json:"file"`
		Line    int    `json:"line"`
		Column  int    `json:"column"`
		Message string `json:"message"`
		Hint    string `json:"hint,omitempty"`
	}
	out := struct {
		Errors []mistake `json:"errors"`
	}{}
	for _, e := range found {
		out.Errors = append(out.Errors, mistake{e.Pos.File, e.Pos.Line, e.Pos.Col, e.Msg, e.Hint})
	}
	if err := a.printJSON(out); err != nil {
		return err
	}
	return printedError{err}
}

func validated(from string, set *schemas.Set, plans []*view.Plan) any {
	type planJSON struct {
		View string `json:"view"`
		From string `json:"from"`
		Plan string `json:"plan"`
	}
	out := struct {
		Directory string     `json:"directory"`
		Events    []string   `json:"events"`
		Views     []planJSON `json:"views"`
	}{Directory: from}
	for _, e := range set.Events {
		out.Events = append(out.Events, e.Name)
	}
	for _, p := range plans {
		out.Views = append(out.Views, planJSON{p.Name(), p.Event.Name, p.Hash})
	}
	return out
}
