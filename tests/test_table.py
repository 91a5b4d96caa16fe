from synprep import table


def test_rows_are_sorted_by_id_as_text():
    rows = [table.meta_row(i, (2, 4, 4, 3), {1: 5.0, 2: 0.0, 3: 7.5}, 1) for i in ("9", "10", "007", "NA")]
    meta = table.meta_table(rows)
    assert meta["synapse_id"].tolist() == ["007", "10", "9", "NA"]
    assert meta.to_csv(index=False).splitlines()[:2] == [
        "synapse_id,filename,pre_synaptic_volume,post_synaptic_volume,synaptic_cleft_volume,n_cutout_sections",
        "007,007__2_4_4_3.npy,5.0,7.5,0.0,1",
    ]


def test_tables_without_rows_have_their_columns():
    assert list(table.meta_table([])) == list(table.META_COLUMNS)
    assert list(table.sections_table([])) == list(table.SECTION_COLUMNS)
