// Set-off by LEMON: the cheapest flow that keeps every net position, solved on the graph as it is given.
// Returns the nanoseconds of run() alone, or -1 where the solver says that there is no optimum; flow[arc] is filled.

#include <chrono>
#include <cstdint>
#include <lemon/cost_scaling.h>
#include <lemon/network_simplex.h>
#include <lemon/static_graph.h>
#include <utility>
#include <vector>

using Graph = lemon::StaticDigraph;

// StaticDigraph wants arcs sorted by tail: the caller sorts them.
template <class Solver>
static int64_t solve(int32_t nodes, int64_t arcs, const int32_t *tail, const int32_t *head,
                     const int64_t *capacity, const int64_t *supply, int64_t *flow)
{
    std::vector<std::pair<int, int>> ends(arcs);
    for (int64_t arc = 0; arc < arcs; arc++)
        ends[arc] = {tail[arc], head[arc]};
    Graph graph;
    graph.build(nodes, ends.begin(), ends.end());
    Graph::ArcMap<int64_t> upper(graph), cost(graph, 1);
    Graph::NodeMap<int64_t> need(graph);
    for (int64_t arc = 0; arc < arcs; arc++)
        upper[graph.arc((int)arc)] = capacity[arc];
    for (int32_t node = 0; node < nodes; node++)
        need[graph.node(node)] = supply[node];
    Solver solver(graph);
    solver.upperMap(upper).costMap(cost).supplyMap(need);
    auto begin = std::chrono::steady_clock::now();
    auto status = solver.run();
    auto end = std::chrono::steady_clock::now();
    if (status != Solver::OPTIMAL)
        return -1;
    for (int64_t arc = 0; arc < arcs; arc++)
        flow[arc] = solver.flow(graph.arc((int)arc));
    return std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count();
}

extern "C" int64_t lemon_network_simplex(int32_t nodes, int64_t arcs, const int32_t *tail,
                                         const int32_t *head, const int64_t *capacity,
                                         const int64_t *supply, int64_t *flow)
{
    return solve<lemon::NetworkSimplex<Graph, int64_t>>(nodes, arcs, tail, head, capacity, supply,
                                                        flow);
}

extern "C" int64_t lemon_cost_scaling(int32_t nodes, int64_t arcs, const int32_t *tail,
                                      const int32_t *head, const int64_t *capacity,
                                      const int64_t *supply, int64_t *flow)
{
    return solve<lemon::CostScaling<Graph, int64_t>>(nodes, arcs, tail, head, capacity, supply,
                                                     flow);
}
