r"""An instrument described by a YAML file: what its raw frames' headers mean, as dimension records.

The form, by example; keys marked with * may be left out::

    name: SimCam                      # value of the dimension `instrument`
    detectors:
      - {id: 0, full_name: S00, raft: S, name_in_raft: "00", purpose: SCIENCE}    # the last three: *
    filters: {sim-g: g, sim-r: r}     # physical filter: band
    files:                            # *
      pattern: "*.fits*"              # * which files of a folder are raw frames (glob on the name)
      fields: 'sim_(?P<exp>\d+)'      # * regular expression found in the file's name; see `file` below
      hdu: 0                          # * number or EXTNAME of the HDU with the pixels and the WCS; the
                                      #   primary header's keywords are seen too
    detector: DETECTOR                # a source whose value is a detector's id or full_name
    exposure:                         # sources of the columns of the exposure's record
      id: EXPID
      physical_filter: FILTER
      begin: {keyword: DATE-OBS, format: isot, scale: utc}      # * no time: no time span
      end: DATE-END                   # * default: begin + exposure_time
      exposure_time: EXPTIME          # * seconds
      observation_type: {keyword: IMAGETYP, map: {Light Frame: science}, default: unknown}    # *
      obs_id: OBSID                   # * default: the id as text
      group: GROUPID                  # * default: the obs_id
      target_name: OBJECT             # * and so on: any column that exposures have
    day_obs: {offset_hours: 12}       # * the night's number YYYYMMDD is the TAI date of `begin` less the
                                      #   offset; or a source with the number or a time in it
    visits:                           # * without it no exposure becomes a visit; with it each of these types
      observation_types: [science]    #   becomes one (visit system 0, "one-to-one")
      without_wcs: visit              # * a frame with no celestial WCS: `visit` (default: has no region),
                                      #   `no_visit`, or `refuse` (the frame is an error)
      padding_px: 10                  # * widen detector regions by so many pixels on each side

A *source* says where a value comes from. ``EXPTIME`` is short for ``{keyword: EXPTIME}``; in full it has one of

- ``keyword``: a header keyword,
- ``file``: a named group of `files.fields`, or ``stem``, the file's name up to its first dot,
- ``value``: the value itself,

and perhaps ``map`` (found text: value; what is not in the map stays), ``default`` (where keyword, group or value is
absent), and for times ``format`` (of Astropy, or a pattern with % as for strptime; default ``isot``), ``scale``
(default ``utc``) and ``time_of_day`` (a second keyword with hours, for a `keyword` that holds only the date).
"""
