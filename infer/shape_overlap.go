package infer

type overlapStage struct{ growing }

func newOverlapStage(s *site) *overlapStage { return &overlapStage{} }

func (g *overlapStage) push(piece string) (string, bool) {
	g.text += piece
	return g.show(len(g.text)), false
}
func (g *overlapStage) flush() (string, bool) { return g.show(len(g.text)), false }
