"""Why a plan holds what it holds: funnels, what to leave out, what became of one quantum."""
