// What the kernels share that sum over queries, for the gradients of keys and values.

// Keys of one sequence, or of the prefix for a part of the sequences; the list of work holds it once for each tile of
// them.
struct Span {
    u32 first;  // tile of the list
    u32 tiles;
    u32 sequences_begin;
    u32 sequences_end;
    u32 keys_begin;
    u32 keys;
    u32 results_begin;
};

// Where the queries of a sequence are.
struct Queries {
    u32 begin;
    u32 rows;
};
