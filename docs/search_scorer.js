// A page whose title has the word comes before a name in the code that has it; what happened once, and tests, come last.
var Scorer = {
  score: ([page, title, anchor, description, score]) =>
    /^(CHANGELOG|docs\/security_history|tests\/)/.test(page) ? score / 4
      : /^docs\/(tutorials\/|refused|glossary)/.test(page) ? score * 2 : score,
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 0, 1: -5, 2: -10 },
  objPrioDefault: -5,
  title: 40,
  partialTitle: 20,
  term: 10,
  partialTerm: 4,
};
