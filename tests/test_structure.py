"""The structure of the code: what import-linter's contracts in pyproject.toml do not hold."""

from __future__ import annotations

import grimp
import networkx as nx


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports for type checking aside."""
    modules = grimp.build_graph("nasdsl", exclude_type_checking_imports=True)
    graph = nx.DiGraph(
        (module, imported) for module in modules.modules for imported in modules.find_modules_directly_imported_by(module)
    )
    assert graph.number_of_edges() > 500
    assert [sorted(circle) for circle in nx.strongly_connected_components(graph) if len(circle) > 1] == []
